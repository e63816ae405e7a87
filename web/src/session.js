// The key or token with which the person at this page has signed in, and when to ask for one.

const STORED = 'pub-sub:credential';
/** The close codes by which a server refuses a connection for its credential. */
const REFUSED = [4401, 4403];

/**
 * A credential is in the memory of the page and in `sessionStorage`: a reload keeps it, and it is gone with the tab. In
 * `localStorage` it would lie on the disk for every later page of this origin, and in the address it would get into logs
 * and histories.
 */
export class Session {
  #storage;
  #listeners = new Set();
  #asking = null;
  #state = { credential: '', message: null };

  /** `storage` is null where the browser allows none: then the credential is in memory alone. */
  constructor(storage) {
    this.#storage = storage;
    this.#state = { credential: storage?.getItem(STORED) ?? '', message: null };
  }

  /** The credential, and the message with which to ask for another one; `null` while nobody has to be asked. */
  get state() {
    return this.#state;
  }

  get credential() {
    return this.#state.credential;
  }

  /** What a request carries, and the payload of `connection_init`. */
  get headers() {
    return this.credential ? { Authorization: `Bearer ${this.credential}` } : {};
  }

  /** Calls `listener` after each change of the state. Returns what stops that. */
  subscribe = (listener) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  #change(state) {
    this.#state = { ...this.#state, ...state };
    this.#listeners.forEach((listener) => listener());
  }

  /**
   * Asks the person to sign in. Resolves to whether they have. All who ask at the same time wait for the same answer.
   * A `refused` credential that is not the present one asks nobody: the person has signed in meanwhile.
   */
  ask(message = '', refused = this.credential) {
    if (refused !== this.credential) return Promise.resolve(this.credential !== '');
    if (!this.#asking) {
      let answer;
      const promise = new Promise((resolve) => (answer = resolve));
      this.#asking = { promise, answer };
    }
    this.#change({ message });
    return this.#asking.promise;
  }

  #end(answer) {
    const asking = this.#asking;
    this.#asking = null;
    asking?.answer(answer);
  }

  signIn(credential) {
    this.#storage?.setItem(STORED, credential);
    this.#change({ credential, message: null });
    this.#end(true);
  }

  /** The person does not want to sign in now. */
  dismiss() {
    this.#change({ message: null });
    this.#end(false);
  }

  signOut() {
    this.#storage?.removeItem(STORED);
    this.#change({ credential: '', message: null });
    this.#end(false);
  }
}

/** The storage of this tab; `null` where the browser's settings forbid it. */
export function tabStorage() {
  try {
    return globalThis.sessionStorage ?? null;
  } catch {
    return null;
  }
}

/** What a person has typed or pasted, as a credential; empty if it cannot be one. */
export function credentialIn(text) {
  const credential = text.trim().replace(/^(authorization:\s*)?bearer\s+/i, '');
  return /^[\x21-\x7e]+$/.test(credential) ? credential : '';
}

/** The headers with the session's credential, unless they have one of their own. */
export function withCredential(session, headers = {}) {
  return hasCredential(headers) ? headers : { ...headers, ...session.headers };
}

/** Whether somebody has written a credential into the Headers pane. It goes before that of the session. */
export const hasCredential = (headers = {}) =>
  Object.keys(headers).some((name) => ['authorization', 'x-api-key', 'apikey', 'token'].includes(name.toLowerCase()));

/** The message in a response of GraphQL or REST, or its status. */
export async function messageIn(response) {
  try {
    const { errors, error } = await response.json();
    return (errors?.[0] ?? error).message;
  } catch {
    return `The server responded with the status ${response.status}.`;
  }
}

/** The message of the error that says that one has to sign in. */
export const unauthenticated = (errors) =>
  (Array.isArray(errors) ? errors : []).find(({ extensions }) => extensions?.code === 'UNAUTHENTICATED')?.message;

/** Whether a WebSocket was closed because the server refused its credential. */
export const isRefused = (event) => REFUSED.includes(event?.code);

/**
 * `fetch` with the session's credential. A response with the status 401 asks the person to sign in, and then the request is
 * sent again: the server has executed nothing.
 */
export function authorized(session, fetch) {
  return async (url, init) => {
    for (;;) {
      const used = session.credential;
      const response = await fetch(url, { ...init, headers: withCredential(session, init.headers) });
      if (response.status !== 401 || hasCredential(init.headers)) return response;
      if (!(await session.ask(await messageIn(response.clone()), used))) return response;
    }
  };
}

/**
 * Signs in with what a person has typed or pasted, if the server takes it. Returns what is wrong, an empty text if nothing is, and
 * `null` if the person has dismissed the question meanwhile.
 */
export async function signInWith(session, text, url, fetch) {
  const credential = credentialIn(text);
  const problem = credential
    ? await check(credential, url, fetch)
    : 'A key or token consists of letters, digits and signs of ASCII, without spaces.';
  if (session.state.message === null) return null;
  if (!problem) session.signIn(credential);
  return problem;
}

/** Asks the server whether it takes the credential. Returns what is wrong, or an empty text. */
export async function check(credential, url, fetch) {
  const headers = { 'content-type': 'application/json', Authorization: `Bearer ${credential}` };
  try {
    const response = await fetch(url, { method: 'POST', headers, body: '{"query":"{ __typename }"}' });
    return [401, 403].includes(response.status) ? await messageIn(response) : '';
  } catch {
    return 'The server cannot be reached.';
  }
}
