// What all parts of the page share: the connection, the session as a signal, the time.

import { signal } from '@preact/signals';
import { endpoint, session } from './api.ts';
import { Line } from './line.ts';

export const line = new Line(endpoint, () => session.headers);

/** The credential, and the message with which the dialog asks for one; null while it does not. */
export const access = signal(session.state);
session.subscribe(() => {
  if (session.credential !== access.value.credential || line.state.peek().phase === 'refused') line.renew();
  access.value = session.state;
});

/** The time, once a second. */
export const now = signal(Date.now());

/** Whether a person sees the page. */
const isSeen = () => document.visibilityState === 'visible';

/** The time between two readings; longer while nobody looks. In milliseconds. */
const READ_MS = 1_000;
export const SELDOM_MS = 5_000;

/** Calls `read` every so many milliseconds, each time after the one before has ended. Returns what ends that. */
export function repeat(read: () => Promise<void>, every = READ_MS): () => void {
  let isOver = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const turn = async () => {
    const began = Date.now();
    await read();
    if (isOver) return;
    const wait = (isSeen() ? every : SELDOM_MS) - (Date.now() - began);
    timer = setTimeout(turn, Math.max(100, wait));
  };
  void turn();
  return () => {
    isOver = true;
    clearTimeout(timer);
  };
}

/** Resolves when there is another credential. */
export function anotherCredential(): Promise<void> {
  const used = session.credential;
  return new Promise((resolve) => {
    const forget = session.subscribe(() => {
      if (session.credential === used) return;
      forget();
      resolve();
    });
  });
}

export function begin(): void {
  void line.run();
  setInterval(() => (now.value = Date.now()), 1_000);
  window.addEventListener('online', () => line.hurry());
  document.addEventListener('visibilitychange', () => isSeen() && line.hurry());
}
