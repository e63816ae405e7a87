/** Codes after which the same request may succeed later. */
const TRANSIENT = new Set(['CONNECTION_LOST', 'LIMIT_REACHED', 'RATE_LIMITED', 'SLOW_CONSUMER', 'UNAVAILABLE', 'UNKNOWN']);

/** An error of the server with its code, or `CONNECTION_LOST` if the server did not respond. */
export class PubSubError extends Error {
  override readonly name = 'PubSubError';
  /** How long the server asks to wait, in milliseconds. */
  readonly retryAfterMs: number | undefined;

  constructor(
    readonly code: string,
    message: string,
    { retryAfterMs, cause }: { retryAfterMs?: number | undefined; cause?: unknown } = {},
  ) {
    super(message, cause === undefined ? undefined : { cause });
    this.retryAfterMs = retryAfterMs;
  }

  /** Whether the same request may succeed later. `consume` and `publish` then try again by themselves. */
  get isTransient(): boolean {
    return TRANSIENT.has(this.code);
  }
}

/** The connection broke, or there was none. */
export const lost = (cause: unknown): PubSubError =>
  new PubSubError('CONNECTION_LOST', `the server cannot be reached${cause instanceof Error ? `: ${cause.message}` : ''}`, { cause });

/** An error in the form of a GraphQL response. */
export interface GraphQLProblem {
  message?: string;
  extensions?: { code?: string; retryAfterMs?: number };
}

export const refused = ({ message, extensions }: GraphQLProblem): PubSubError =>
  new PubSubError(extensions?.code ?? 'INTERNAL', message ?? 'the server gives no reason', { retryAfterMs: extensions?.retryAfterMs });
