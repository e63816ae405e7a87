// What the page knows of the server and its topics, read once a second.

import { signal } from '@preact/signals';
import { execute, messageOf, Refused, session } from './api.ts';
import { NewestDocument, ServerDocument, StatsDocument, TopicsDocument } from './generated.ts';
import type { ServerQuery, StatsQuery, TopicLineFragment, TopicsQuery } from './generated.ts';
import { compact } from './json.ts';
import { density, Rate } from './samples.ts';

/** So many topics are listed first, and so many more each time. */
export const STEP = 100;
/** So many topics' newest messages are read in one turn: a browser has six connections to one server. */
const PREVIEWS = 6;
/** So many topics' rates are remembered. */
const REMEMBERED = 2_000;

/** The newest message of a topic: its offset, and its data as text. */
type Preview = { epoch: string; offset: number; text: string };

/** What the page has worked out about a topic. */
export class Numbers {
  readonly rate = new Rate();
  /** How many messages a step of the offsets stands for; null while nobody may say. */
  factor: number | null = null;
  preview: Preview | null = null;
  /** The topic's end when the preview was read, or was refused. */
  previewedAt = -1;
  /** When it was read, as a number that grows. */
  turn = 0;
  /** Whether the credential, or none, does not allow to read messages. */
  isHidden = false;

  read(at: number, topic: TopicLineFragment): void {
    // While the history is not full, the page sees for itself whether the offsets are dense.
    if (this.factor === null && topic.messageCount === topic.lastOffset) this.factor = 1;
    this.rate.read(at, topic.epoch, topic.lastOffset, this.factor);
  }

  /** Messages a second, and whether that is an estimate. */
  get now(): { value: number | null; isEstimate: boolean } {
    const { factor } = this;
    return factor === null
      ? { value: null, isEstimate: false }
      : { value: this.rate.mean(factor), isEstimate: factor !== 1 };
  }

  /** Reads the newest message, if it is another one than before. */
  async readPreview(topic: TopicLineFragment): Promise<void> {
    this.previewedAt = topic.lastOffset;
    if (this.isHidden) return;
    try {
      const { topic: read } = await execute(NewestDocument, { name: topic.name }, { unasked: true });
      const newest = read?.recent.nodes.at(-1);
      if (!read) return;
      this.factor = density(read.recent.nodes);
      const data = read.newest.nodes[0]?.data;
      this.preview = newest ? { epoch: read.epoch, offset: newest.offset, text: compact(data) } : null;
    } catch (error) {
      // Whoever may not subscribe sees the topic, but none of its messages.
      this.isHidden = isNoRight(problemOf(error));
      this.preview = null;
    }
  }
}

const known = new Map<string, Numbers>();

export function numbersOf(name: string): Numbers {
  let numbers = known.get(name);
  if (!numbers) {
    numbers = new Numbers();
    known.set(name, numbers);
    for (const oldest of known.keys()) {
      if (known.size <= REMEMBERED) break;
      known.delete(oldest);
    }
  }
  return numbers;
}

/** The answer to what is read again and again, or why there is none. */
export type Answer<T> = { value: T | null; problem: { code: string; message: string } | null };

const none = { value: null, problem: null };

export const problemOf = (error: unknown): { code: string; message: string } => ({
  code: error instanceof Refused ? error.code : '',
  message: messageOf(error),
});

/** Whether the credential, or none, does not allow it: to ask again would be in vain. */
export const isNoRight = (problem: { code: string } | null): boolean =>
  problem?.code === 'FORBIDDEN' || problem?.code === 'UNAUTHENTICATED';

export const topics = signal<Answer<TopicsQuery['topics']>>(none);
export const health = signal<Answer<ServerQuery['health']>>(none);
export const stats = signal<Answer<StatsQuery['stats']>>(none);
/** Everything that the server accepts, in messages a second. */
export const published = new Rate();

export async function readTopics(prefix: string, first: number): Promise<void> {
  try {
    const answer = await execute(TopicsDocument, { first, prefix: prefix || null }, { unasked: true });
    const at = Date.now();
    const { nodes } = answer.topics;
    nodes.forEach((topic) => numbersOf(topic.name).read(at, topic));
    topics.value = { value: answer.topics, problem: null };
    await readPreviews(nodes);
  } catch (error) {
    topics.value = { value: error instanceof Refused ? null : topics.value.value, problem: problemOf(error) };
  }
}

let lastTurn = 0;

async function readPreviews(nodes: TopicLineFragment[]): Promise<void> {
  const changed = nodes.filter(({ name, lastOffset }) => {
    const { previewedAt, isHidden } = numbersOf(name);
    return previewedAt !== lastOffset && !isHidden;
  });
  // Those whose turn was longest ago come first, so that each has its turn.
  changed.sort((a, b) => numbersOf(a.name).turn - numbersOf(b.name).turn);
  const chosen = changed.slice(0, PREVIEWS);
  await Promise.all(
    chosen.map((topic) => {
      const numbers = numbersOf(topic.name);
      numbers.turn = lastTurn += 1;
      return numbers.readPreview(topic);
    }),
  );
  // The list is shown again with what was read.
  if (chosen.length > 0) topics.value = { ...topics.value };
}

/** The credential that may not see the statistics: it is not asked again. */
let refused: string | null = null;

export async function readStats(): Promise<void> {
  if (refused === session.credential) return;
  try {
    const answer = await execute(StatsDocument, {}, { unasked: true });
    published.read(Date.now(), '', answer.stats.published);
    stats.value = { value: answer.stats, problem: null };
    refused = null;
  } catch (error) {
    const problem = problemOf(error);
    if (isNoRight(problem)) refused = session.credential;
    stats.value = { value: isNoRight(problem) ? null : stats.value.value, problem };
  }
}

export async function readHealth(): Promise<void> {
  try {
    const answer = await execute(ServerDocument, {}, { unasked: true });
    health.value = { value: answer.health, problem: null };
  } catch (error) {
    health.value = { value: null, problem: problemOf(error) };
  }
}

/** Forgets everything that was read with another credential. */
export function forgetAll(): void {
  known.clear();
  topics.value = none;
  stats.value = none;
  refused = null;
}
