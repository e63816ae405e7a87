// The top of every page: where one is, whether the page is connected, who one is.

import { session, signOut } from './api.ts';
import { access, line, now } from './page.ts';
import { route } from './routes.ts';
import { health } from './store.ts';
import { SignIn } from './sign-in.tsx';

const STATUS: Record<string, string> = {
  draining: 'The server is stopping. This page connects again by itself.',
  starting: 'The server is still reading what it has stored.',
  read_only: 'The server cannot store anything at the moment: publishing fails until it can.',
};

/** Whether the page is connected, always in sight. */
function Connection() {
  const state = line.state.value;
  const isWaiting = state.phase === 'waiting';
  const seconds = isWaiting ? Math.max(0, Math.ceil((state.until - now.value) / 1_000)) : 0;
  const text = {
    live: 'Live',
    connecting: 'Connecting',
    waiting: 'Connection lost',
    refused: 'Not signed in',
  }[state.phase];
  return (
    <div class={`connection ${state.phase}`}>
      <span role="status">
        <span class="dot" aria-hidden="true" />
        {text}
      </span>
      {isWaiting && (
        <button type="button" class="small" onClick={() => line.hurry()}>
          Try now<span class="seconds"> ({seconds} s)</span>
        </button>
      )}
    </div>
  );
}

function Account() {
  const isSignedIn = access.value.credential !== '';
  return (
    <>
      <button type="button" class="small" onClick={() => (isSignedIn ? signOut() : void session.ask())}>
        {isSignedIn ? 'Sign out' : 'Sign in'}
      </button>
      <span role="status" class="unseen">
        {isSignedIn ? 'Signed in' : ''}
      </span>
      <SignIn />
    </>
  );
}

export function Header() {
  const { value } = health.value;
  const warning = value ? STATUS[value.status] : undefined;
  return (
    <>
      <header>
        <a class="brand" href="#/">
          <svg viewBox="0 0 16 16" aria-hidden="true">
            <circle cx="8" cy="8" r="6.5" fill="none" stroke="currentColor" stroke-width="2" />
            <circle cx="8" cy="8" r="2.5" fill="currentColor" />
          </svg>
          pub-sub
          <span class="version">{value?.version}</span>
        </a>
        <nav aria-label="Pages">
          <a class="home" href="#/" aria-current={route.value.page === 'topics' ? 'page' : undefined}>
            Topics
          </a>
          <a href="graphql">GraphiQL</a>
        </nav>
        <Connection />
        <Account />
      </header>
      {warning && (
        <p class="banner" role="alert">
          {warning}
        </p>
      )}
    </>
  );
}
