// What a topic's tail shows: messages, gaps in their places, and notes about the connection. It is bounded: what came first
// leaves it first.

import { compact } from './json.ts';
import type { Gap } from './words.ts';

/** So many rows stay on the page, with so many characters of data in all. */
export const MAX_ROWS = 2_000;
export const MAX_CHARACTERS = 8_000_000;
/** So many new rows wait while the tail is held, with so many characters. After that the page reads no further until it goes on. */
export const MAX_HELD = 1_000;
export const MAX_HELD_CHARACTERS = 4_000_000;
/** Rows leave in groups of this size, because each departure moves all the others. */
const SLACK = 200;

export type Message = {
  messageId: string;
  key: string | null;
  headers: Record<string, string> | null;
  /** Whether it removed its key. Its data is null then. */
  removed: boolean;
  offset: number;
  cursor: string;
  publishedAt: string;
  /** The data as compact JSON. */
  text: string;
};

export type Row =
  | { kind: 'message'; id: number; message: Message }
  | { kind: 'gap'; id: number; gap: Gap }
  | { kind: 'note'; id: number; text: string; isBad: boolean };

export type Delivered = Omit<Message, 'text'> & { data: unknown };

const sizeOf = (row: Row): number => (row.kind === 'message' ? row.message.text.length : 0);

export class Tail {
  rows: Row[] = [];
  held: Row[] = [];
  /** Whether new rows wait. */
  isHeld = false;
  /** The number of messages and of missed messages since the start. */
  received = 0;
  missed = 0;
  gaps = 0;
  /** Whether `missed` is exact: a clustered engine may not know. */
  isExact = true;
  /** So many rows have left the page. Whoever keeps a place among the rows moves it by the difference. */
  departed = 0;
  #nextId = 1;
  #characters = 0;
  #heldCharacters = 0;

  message({ data, ...message }: Delivered): void {
    this.received += 1;
    this.#add({ kind: 'message', id: this.#nextId++, message: { ...message, text: compact(data) } });
  }

  gap(gap: Gap): void {
    this.gaps += 1;
    this.missed += gap.missed ?? 0;
    if (gap.missed === null) this.isExact = false;
    this.#add({ kind: 'gap', id: this.#nextId++, gap });
  }

  note(text: string, isBad = false): void {
    this.#add({ kind: 'note', id: this.#nextId++, text, isBad });
  }

  /** Whether so much waits that the page should read no further. */
  get isFull(): boolean {
    return this.held.length >= MAX_HELD || this.#heldCharacters >= MAX_HELD_CHARACTERS;
  }

  hold(): void {
    this.isHeld = true;
  }

  /** Shows what has waited. */
  release(): void {
    this.isHeld = false;
    const rows = this.held;
    this.held = [];
    this.#heldCharacters = 0;
    rows.forEach((row) => this.#show(row));
  }

  clear(): void {
    Object.assign(this, { rows: [], held: [], received: 0, missed: 0, gaps: 0, isExact: true, departed: 0 });
    this.#characters = 0;
    this.#heldCharacters = 0;
  }

  #add(row: Row): void {
    if (!this.isHeld) return this.#show(row);
    this.held.push(row);
    this.#heldCharacters += sizeOf(row);
  }

  #show(row: Row): void {
    this.rows.push(row);
    this.#characters += sizeOf(row);
    if (this.rows.length > MAX_ROWS + SLACK) this.#drop(this.rows.length - MAX_ROWS);
    while (this.#characters > MAX_CHARACTERS && this.rows.length > 1) this.#drop(Math.min(SLACK, this.rows.length - 1));
  }

  #drop(number: number): void {
    for (const row of this.rows.splice(0, number)) this.#characters -= sizeOf(row);
    this.departed += number;
  }
}
