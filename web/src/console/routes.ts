// The pages' addresses are in the fragment, because the server knows `/` alone: `/#/topics/orders` is a topic's page.

import { signal } from '@preact/signals';

export type Route = { page: 'topics' } | { page: 'topic'; name: string };

export function routeOf(hash: string): Route {
  const name = hash.match(/^#\/topics\/(.+)$/)?.[1];
  if (name === undefined) return { page: 'topics' };
  try {
    return { page: 'topic', name: decodeURIComponent(name) };
  } catch {
    // It is no percent-encoded text: somebody has typed it as it is.
    return { page: 'topic', name };
  }
}

export const addressOf = (name: string): string => `#/topics/${encodeURIComponent(name)}`;

export const route = signal<Route>({ page: 'topics' });

export function followAddress(): void {
  const read = () => (route.value = routeOf(window.location.hash));
  window.addEventListener('hashchange', read);
  read();
}
