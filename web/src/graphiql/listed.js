// The results of a subscription as GraphiQL shows them, and what happens when the server refuses it.

import { isRefused, unauthenticated } from '../session.js';

/** So many results of a subscription stay on the page. */
const KEPT = 100;

/** The error as GraphiQL can show it: it has no text for the event of a closed WebSocket. */
const shown = (error) =>
  error && 'reason' in error ? new Error(`The WebSocket was closed: ${error.code} ${error.reason}`.trim()) : error;

/** Why the server refused the subscription, if it was for the credential. */
const refusal = (error) => unauthenticated(error) ?? (isRefused(error) ? 'The server refused the connection.' : undefined);

/**
 * GraphiQL shows the newest result in place of the one before it. What came before would be gone from the screen, so each
 * result that GraphiQL gets is the list of what has come. It is no generator: one that waits for its next result cannot be
 * stopped.
 */
export class Listed {
  #session;
  #open;
  #asks;
  #results;
  /** The credential with which it was opened. */
  #credential = '';
  #newestFirst = [];
  // Shows at once that the subscription waits.
  #received = -1;
  #ended = false;
  #forget;

  /** `open` begins the subscription. `asks` says whether the person is asked to sign in if the server refuses that. */
  constructor(session, open, asks) {
    this.#session = session;
    this.#open = open;
    this.#asks = asks;
    // What was subscribed to with a credential ends with it.
    this.#forget = session.subscribe(() => {
      if (this.#credential && !session.credential) this.return();
    });
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  async next() {
    this.#received += 1;
    if (this.#received > 0) {
      const { done, value } = await this.#result();
      if (done) return this.return();
      // It ends with that. What comes meanwhile would be lost without a word if it began again by itself.
      const message = unauthenticated(value.errors);
      if (message && this.#asks) this.#session.ask(message, this.#credential);
      this.#newestFirst.unshift(value);
      this.#newestFirst.length = Math.min(this.#newestFirst.length, KEPT);
    }
    return { done: this.#ended, value: { received: this.#received, newestFirst: this.#newestFirst } };
  }

  /** The next result. A refusal asks the person to sign in; before the first result, the subscription then begins again. */
  async #result() {
    while (!this.#ended) {
      this.#credential = this.#session.credential;
      try {
        this.#results ??= this.#open();
        return await this.#results.next();
      } catch (error) {
        const message = refusal(error);
        if (message === undefined || !this.#asks) throw shown(error);
        const answer = this.#session.ask(message, this.#credential);
        // As above.
        if (this.#received > 1 || !(await answer)) throw shown(error);
        this.#results = undefined;
      }
    }
    return { done: true };
  }

  async return() {
    this.#ended = true;
    this.#forget();
    await this.#results?.return();
    return { done: true, value: undefined };
  }
}
