// The button in the toolbar that signs in and out, and the dialog that asks for a key or token.

import { Button, Dialog, ToolbarButton, useGraphiQLActions } from '@graphiql/react';
import { useEffect, useRef, useState, useSyncExternalStore } from 'react';
import { endpoint } from './fetcher.js';
import { signInWith } from '../session.js';

export function useSession(session) {
  return useSyncExternalStore(session.subscribe, () => session.state);
}

/** A key, which is full while one is signed in. */
function KeyIcon({ isFull }) {
  return (
    <svg className="graphiql-toolbar-icon" viewBox="0 0 24 24" fill="none" stroke="currentColor" strokeWidth="1.5" aria-hidden="true">
      <circle cx="8" cy="15" r="5" fill={isFull ? 'currentColor' : 'none'} />
      <path d="M11.5 11.5 20 3m-4 4 3 3m-6 0 2 2" />
    </svg>
  );
}

/** Asks for a key or token, and again while the server refuses it. */
function SignInDialog({ session }) {
  const { message } = useSession(session);
  const [wrong, setWrong] = useState('');
  const [isChecking, setChecking] = useState(false);
  const input = useRef(null);

  const submit = async (event) => {
    event.preventDefault();
    setChecking(true);
    const problem = await signInWith(session, input.current.value, endpoint.href, window.fetch.bind(window));
    setChecking(false);
    if (problem === null) return;
    setWrong(problem);
    if (problem) input.current?.select();
  };

  const change = (isOpen) => {
    if (!isOpen) session.dismiss();
  };

  useEffect(() => setWrong(''), [message]);
  const explanation = wrong || message;
  return (
    <Dialog open={message !== null} onOpenChange={change}>
      <div className="sign-in">
        <div className="graphiql-dialog-header">
          <Dialog.Title className="graphiql-dialog-title">Sign in</Dialog.Title>
          <Dialog.Close />
        </div>
        <form onSubmit={submit}>
          <Dialog.Description>
            Requests and WebSockets of this tab then carry the key or token. The browser forgets it when the tab is closed.
          </Dialog.Description>
          <label htmlFor="credential">Key or token</label>
          <input
            id="credential"
            ref={input}
            type="password"
            required
            autoFocus
            autoComplete="off"
            autoCapitalize="off"
            spellCheck={false}
            aria-invalid={wrong !== ''}
            aria-describedby="credential-problem"
          />
          <p id="credential-problem" role="alert">
            {explanation}
          </p>
          <Button type="submit" disabled={isChecking}>
            Sign in
          </Button>
        </form>
      </div>
    </Dialog>
  );
}

/** The button, and the dialog that it opens. */
export function SignIn({ session }) {
  const { credential } = useSession(session);
  const { introspect } = useGraphiQLActions();
  const known = useRef(credential);

  // What one may see may depend on who one is.
  useEffect(() => {
    if (credential && credential !== known.current) introspect();
    known.current = credential;
  }, [credential, introspect]);

  return (
    <>
      <ToolbarButton
        label={credential ? 'Sign out' : 'Sign in'}
        onClick={() => (credential ? session.signOut() : session.ask())}
      >
        <KeyIcon isFull={credential !== ''} />
      </ToolbarButton>
      <span role="status" className="sign-in-state">
        {credential ? 'Signed in' : ''}
      </span>
      <SignInDialog session={session} />
    </>
  );
}
