// Rates and lags over the last minutes, made from what the page has read one after the other.

/** A sample a second, for five minutes. */
export const KEPT = 300;
/** Without a sample for so long, a plot shows a hole. In milliseconds. */
const HOLE_MS = 5_000;
/** A rate as a number is the mean over this time, so that it does not jump; in milliseconds. */
const MEAN_MS = 5_000;

/** Values over time: seconds since 1970, and the values, null where there is none. */
export class Series {
  times: number[] = [];
  values: (number | null)[] = [];

  /** Adds a value at a time in milliseconds. */
  push(at: number, value: number | null): void {
    const last = this.times.at(-1);
    if (last !== undefined && at - last * 1_000 > HOLE_MS) this.#add(last + 1, null);
    this.#add(at / 1_000, value);
  }

  #add(time: number, value: number | null): void {
    this.times.push(time);
    this.values.push(value);
    if (this.times.length > KEPT) {
      this.times.shift();
      this.values.shift();
    }
  }
}

type Reading = { at: number; epoch: string; total: number };

/** A rate from a number that grows. */
export class Rate {
  readonly series = new Series();
  #readings: Reading[] = [];

  /**
   * Adds what was read at a time in milliseconds. In another epoch the number begins again, and so does the rate. `factor`
   * is how many messages one step of the number stands for; null while that is not known.
   */
  read(at: number, epoch: string, total: number, factor: number | null = 1): void {
    const last = this.#readings.at(-1);
    // A server that answers late gives two answers at once, from which no rate can be made.
    if (last && at - last.at < 200) return;
    if (last && (last.epoch !== epoch || total < last.total || at - last.at > HOLE_MS)) this.#readings = [];
    const before = this.#readings.at(-1);
    this.#readings.push({ at, epoch, total });
    while (this.#readings.length > 2 && at - this.#readings[1]!.at >= MEAN_MS) this.#readings.shift();
    this.series.push(at, before && factor !== null ? (factor * (total - before.total) * 1_000) / (at - before.at) : null);
  }

  /** The mean over the last seconds; null while there is nothing to make it from. */
  mean(factor = 1): number | null {
    const [first, last] = [this.#readings[0], this.#readings.at(-1)];
    if (!first || !last || first === last) return null;
    return (factor * (last.total - first.total) * 1_000) / (last.at - first.at);
  }
}

export type Placed = { offset: number; cursor: string; previous: string | null };

/**
 * How many messages one step of a topic's offsets stands for: 1 with the engines whose offsets are dense. With a clustered one
 * topics share the numbers, and this is an estimate from the messages that follow each other in the topic. Of those between
 * which others stood that are no longer kept, nothing can be said.
 */
export function density(messages: Placed[]): number {
  let pairs = 0;
  let steps = 0;
  messages.slice(1).forEach((message, index) => {
    const before = messages[index]!;
    if (message.previous !== before.cursor) return;
    pairs += 1;
    steps += message.offset - before.offset;
  });
  return steps > 0 ? pairs / steps : 1;
}
