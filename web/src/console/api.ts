// Queries and mutations: POST to /graphql, with types made from the schema.

import { messageIn, Session, tabStorage, unauthenticated } from '../session.js';
import type { TypedDocumentString } from './generated.ts';
import { compact, parse } from './json.ts';
import { explained } from './words.ts';

export const session: Session = new Session(tabStorage());

// Relative to the page, so that it is right behind a proxy that adds a prefix.
export const endpoint = new URL('graphql', window.location.href.split('#')[0]);

/** An answer that takes longer counts as none. */
const PATIENCE_MS = 10_000;

export type GraphQlError = { message: string; extensions?: { code?: string; retryAfterMs?: number } };

/** The server has refused an operation. The message is in plain words. */
export class Refused extends Error {
  readonly code: string;

  constructor({ message, extensions }: GraphQlError) {
    const code = extensions?.code ?? 'INTERNAL';
    super(explained(code, message, extensions?.retryAfterMs));
    this.code = code;
  }
}

/** No answer came. A mutation may have been executed nevertheless. */
export class Unreachable extends Error {
  constructor() {
    super('The server did not answer.');
  }
}

/** What to show for whatever was thrown. */
export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

type Result = { data?: unknown; errors?: GraphQlError[] };

/** The credential for which the person was asked for another one, and gave none. Nobody is asked for it twice unasked. */
let dismissed: string | undefined;
/** The credential with which the server answers nothing, and what it said. The page does not ask it again and again. */
let lockedOut: { credential: string; message: string } | undefined;
// Whoever signs in with the same credential once more wants to know whether the server takes it now.
session.subscribe(() => (lockedOut = undefined));

/** Whoever signs out does not want to be asked, either. */
export function signOut(): void {
  dismissed = '';
  session.signOut();
}

const unauthenticatedError = (message: string) => new Refused({ message, extensions: { code: 'UNAUTHENTICATED' } });

async function post(body: string): Promise<Result | { refusal: string }> {
  try {
    const headers = {
      'content-type': 'application/json',
      accept: 'application/graphql-response+json',
      ...session.headers,
    };
    const response = await fetch(endpoint, { method: 'POST', headers, body, signal: AbortSignal.timeout(PATIENCE_MS) });
    if (response.status === 401) return { refusal: await messageIn(response) };
    return parse(await response.text()) as Result;
  } catch {
    throw new Unreachable();
  }
}

/**
 * Executes a query or mutation and returns its data. The first error of the result is thrown: each operation of this page
 * asks for one thing alone.
 *
 * Where the server wants a credential, or another one, the person is asked for it and the operation is sent again: the
 * server has executed nothing. What the page asks for `unasked`, again and again, opens the dialog only where the server
 * answers nothing at all, and only once.
 */
export async function execute<Data, Variables>(
  document: TypedDocumentString<Data, Variables>,
  variables: Variables,
  { unasked = false } = {},
): Promise<Data> {
  for (;;) {
    const used = session.credential;
    if (unasked && lockedOut?.credential === used) throw unauthenticatedError(lockedOut.message);
    const result = await post(compact({ query: document.toString(), variables }));
    const wanted = 'refusal' in result ? result.refusal : unauthenticated(result.errors);
    const asks = !unasked || ('refusal' in result && dismissed !== used);
    if (wanted !== undefined && asks) {
      if (await session.ask(wanted, used)) continue;
      dismissed = used;
    }
    if ('refusal' in result) lockedOut = { credential: used, message: result.refusal };
    if (wanted !== undefined) throw unauthenticatedError(wanted);
    const { data, errors } = result as Result;
    if (errors?.[0]) throw new Refused(errors[0]);
    return data as Data;
  }
}
