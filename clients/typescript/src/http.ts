import { lost, refused, type GraphQLProblem } from './error.js';

/** A key or token, or a function that returns a fresh one. It is called for each request and connection. */
export type Credential = string | (() => string | Promise<string>);

export interface Server {
  /** The server's address, such as `https://example.org` or, behind a proxy, `https://example.org/pub-sub`. */
  url: string;
  token?: Credential | undefined;
}

/** How long one request may take, in milliseconds: as long as the server waits for its storage, and some more. */
const REQUEST_MS = 30_000;

export function address({ url }: Server, path: string): URL {
  return new URL(path, url.endsWith('/') ? url : `${url}/`);
}

export async function authorization({ token }: Server): Promise<Record<string, string>> {
  const credential = typeof token === 'function' ? await token() : token;
  return credential === undefined ? {} : { Authorization: `Bearer ${credential}` };
}

/** Executes a query or mutation, once. */
export async function execute<Data>(server: Server, query: string, variables: object, signal: AbortSignal): Promise<Data> {
  const headers = { 'Content-Type': 'application/json', ...(await authorization(server)) };
  // What is refused before it is known to be GraphQL, such as a body that is too large, has the form of the REST interface.
  let body: { data?: Data | null; errors?: GraphQLProblem[]; error?: { code: string; message: string } };
  try {
    const response = await fetch(address(server, 'graphql'), {
      method: 'POST',
      headers,
      body: JSON.stringify({ query, variables }),
      signal: AbortSignal.any([signal, AbortSignal.timeout(REQUEST_MS)]),
    });
    // A proxy without a server behind it responds with something else, which is no JSON.
    body = (await response.json()) as typeof body;
  } catch (cause) {
    signal.throwIfAborted();
    throw lost(cause);
  }
  if (body.errors?.[0]) throw refused(body.errors[0]);
  if (body.error) throw refused({ message: body.error.message, extensions: body.error });
  if (!body.data) throw lost(new Error('the response is not one of pub-sub'));
  return body.data;
}

/** Waits, and resolves early if the signal says so. */
export function wait(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal.addEventListener('abort', end);
  });
}

/** The shortest and the longest wait before another attempt, in milliseconds. */
const WAITS = [250, 10_000] as const;

/** How long to wait after so many failures. The random part keeps clients that lost the same server from returning together. */
export const pause = (failures: number): number => Math.min(WAITS[1], WAITS[0] * 2 ** failures) * (0.5 + Math.random() / 2);
