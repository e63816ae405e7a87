// Waits for states, never for a fixed time.

export const DEADLINE = 10_000;

/** Waits until `check` returns something truthy; fails after the deadline. */
export async function until(what, check, deadline = DEADLINE) {
  const end = Date.now() + deadline;
  for (;;) {
    const answer = await check();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`not within ${deadline} ms: ${typeof what === 'function' ? what() : what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Waits for the promise; fails after the deadline. */
export function within(what, promise, deadline = DEADLINE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${deadline} ms: ${what}`)), deadline);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Everything that arrived, in order, and a way to wait for the next item. */
export class Inbox {
  items = [];
  #read = 0;
  #waiting = [];

  push(item) {
    this.items.push(item);
    for (const wake of this.#waiting.splice(0)) wake();
  }

  async next(what = 'the next item') {
    const end = Date.now() + DEADLINE;
    while (this.#read >= this.items.length) {
      const left = end - Date.now();
      await within(`${what} (have ${JSON.stringify(this.items).slice(0, 2_000)})`, new Promise((wake) => this.#waiting.push(wake)), left);
    }
    return this.items[this.#read++];
  }

  get unread() {
    return this.items.length - this.#read;
  }
}

const cleanups = new WeakMap();

/** Registers cleanup for the end of the test; the last registered runs first. */
export function after(t, undo) {
  if (!cleanups.has(t)) {
    cleanups.set(t, []);
    t.after(async () => {
      for (const undo of cleanups.get(t).reverse()) await undo();
    });
  }
  cleanups.get(t).push(undo);
}
