// The dialog that asks for a key or token, and again while the server refuses it.

import { useEffect, useRef, useState } from 'preact/hooks';
import { signInWith } from '../session.js';
import { endpoint, session } from './api.ts';
import { access } from './page.ts';
import { Dialog, Field, Problem } from './ui.tsx';
import { sentence } from './words.ts';

export function SignIn() {
  const { message } = access.value;
  return (
    <Dialog title="Sign in" isOpen={message !== null} onClose={() => session.state.message !== null && session.dismiss()}>
      <Form message={message ?? ''} />
    </Dialog>
  );
}

function Form({ message }: { message: string }) {
  const input = useRef<HTMLInputElement>(null);
  const [wrong, setWrong] = useState('');
  const [isChecking, setChecking] = useState(false);
  useEffect(() => setWrong(''), [message]);

  const submit = async (event: Event) => {
    event.preventDefault();
    setChecking(true);
    const problem = await signInWith(session, input.current?.value ?? '', endpoint.href, window.fetch.bind(window));
    setChecking(false);
    if (problem === null) return;
    setWrong(problem);
    if (problem) input.current?.select();
  };

  return (
    <form onSubmit={submit}>
      <p>
        The requests and the connection of this tab then carry the key or token. The browser forgets it when the tab is
        closed.
      </p>
      <Field label="Key or token">
        {({ id }) => (
          <input
            id={id}
            ref={input}
            type="password"
            required
            autofocus
            autocomplete="off"
            autocapitalize="off"
            spellcheck={false}
            aria-invalid={wrong !== ''}
            aria-describedby="credential-problem"
          />
        )}
      </Field>
      <Problem id="credential-problem" text={sentence(wrong || message)} />
      <div class="actions">
        <button type="button" onClick={() => session.dismiss()}>
          Cancel
        </button>
        <button type="submit" class="primary" disabled={isChecking}>
          Sign in
        </button>
      </div>
    </form>
  );
}
