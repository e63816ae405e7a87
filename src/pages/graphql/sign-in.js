// Signing in with a key or token. The page and `sessionStorage` keep it: a reload finds it again, and it is gone with the
// tab. In `localStorage` it would lie on the disk for every later page of this origin, and in the address it would get into
// logs and histories.

/** What the dialog returns when the server has taken the credential. */
const SIGNED_IN = 'signed in';
const STORED = 'pub-sub:credential';

const element = (id) => document.getElementById(id);
const [button, dialog, form, input, problem] = ['sign', 'sign-in', 'sign-in-form', 'credential', 'problem'].map(element);
const signedIn = element('signed-in');

/** The storage of this tab; `null` where the browser's settings forbid it. */
function tabStorage() {
  try {
    return window.sessionStorage;
  } catch {
    return null;
  }
}
const storage = tabStorage();

let credential = storage?.getItem(STORED) ?? '';
/** Those who wait for the person to sign in. */
let waiting = [];
const signOutListeners = [];

/** Calls `listener` when the person signs out. */
export const onSignOut = (listener) => signOutListeners.push(listener);

/** The credential that requests carry now. */
export const current = () => credential;

/** What a request carries for it. */
export const headers = (of = credential) => (of ? { authorization: `Bearer ${of}` } : {});

/** The message of the error in a response, or its status. */
export async function messageIn(response) {
  try {
    const { errors, error } = await response.json();
    return (errors?.[0] ?? error).message;
  } catch {
    return `The server responded with the status ${response.status}.`;
  }
}

function open(message) {
  problem.textContent = message;
  if (dialog.open) return;
  dialog.returnValue = '';
  dialog.showModal();
}

/**
 * Asks the person to sign in, because the server has `refused` a credential with this message. Resolves to whether there is
 * another credential now.
 */
export function ask(refused, message) {
  // The person has signed in meanwhile.
  if (refused !== credential) return Promise.resolve(credential !== '');
  open(message);
  return new Promise((resolve) => waiting.push(resolve));
}

function end(answer) {
  const all = waiting;
  waiting = [];
  all.forEach((resolve) => resolve(answer));
}

function keep(value) {
  credential = value;
  if (value) storage?.setItem(STORED, value);
  else storage?.removeItem(STORED);
  button.textContent = value ? 'Sign out' : 'Sign in';
  signedIn.textContent = value ? 'Signed in' : '';
}

/** What is wrong with a credential; empty if the server takes it. */
async function check(value) {
  if (!/^[\x21-\x7e]+$/.test(value)) return 'A key or token consists of letters, digits and signs of ASCII, without spaces.';
  try {
    const body = '{"query":"{ __typename }"}';
    const sent = { 'content-type': 'application/json', ...headers(value) };
    const response = await fetch(window.location.pathname, { method: 'POST', headers: sent, body });
    return [401, 403].includes(response.status) ? await messageIn(response) : '';
  } catch {
    return 'The server cannot be reached.';
  }
}

form.onsubmit = async (event) => {
  event.preventDefault();
  const value = input.value.trim().replace(/^(authorization:\s*)?bearer\s+/i, '');
  const wrong = await check(value);
  // The person may have closed the dialog meanwhile.
  if (!dialog.open) return;
  input.setAttribute('aria-invalid', `${wrong !== ''}`);
  problem.textContent = wrong;
  if (wrong) {
    input.select();
    return;
  }
  keep(value);
  dialog.close(SIGNED_IN);
};

dialog.onclose = () => {
  form.reset();
  input.removeAttribute('aria-invalid');
  problem.textContent = '';
  end(dialog.returnValue === SIGNED_IN);
};

element('cancel').onclick = () => dialog.close();

button.onclick = () => {
  if (!credential) {
    open('');
    return;
  }
  keep('');
  signOutListeners.forEach((listener) => listener());
};

keep(credential);
