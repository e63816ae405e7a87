// What a topic's state shows: the newest message of each key. It is bounded: keys beyond the bound are counted and not kept.

import { compact } from './json.ts';
import type { Delivered, Message } from './tail.ts';
import type { Gap } from './words.ts';

/** So many keys stay on the page. */
export const MAX_KEYS = 5_000;
/** And so many characters of each value. */
export const MAX_CHARACTERS = 2_000;

export type Value = Message & { key: string };

export class Values {
  /** Whether everything is here that the server had when the page asked. */
  isComplete = false;
  /** Whether messages are missing, so that a value may be an older one. */
  isUnsure = false;
  /** Whether there are more keys than the page keeps. */
  isCut = false;
  #byKey = new Map<string, Value>();
  #sorted: Value[] | undefined;

  message({ data, ...message }: Delivered): void {
    const { key } = message;
    if (key === null) return;
    this.#sorted = undefined;
    if (message.removed) {
      this.#byKey.delete(key);
    } else if (this.#byKey.has(key) || this.#byKey.size < MAX_KEYS) {
      this.#byKey.set(key, { ...message, key, text: compact(data).slice(0, MAX_CHARACTERS) });
    } else {
      this.isCut = true;
    }
  }

  gap(_: Gap): void {
    this.isUnsure = true;
  }

  complete(): void {
    this.isComplete = true;
  }

  /** Notes about the connection are the tail's. */
  note(): void {}

  get isFull(): boolean {
    return false;
  }

  release(): void {}

  get size(): number {
    return this.#byKey.size;
  }

  /** The values in the order of their keys. */
  slice(first: number, end: number): Value[] {
    this.#sorted ??= [...this.#byKey.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
    return this.#sorted.slice(first, end);
  }
}
