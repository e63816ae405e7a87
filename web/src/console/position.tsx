// Where the tail begins: a choice, and what it needs to know.

import { useState } from 'preact/hooks';
import type { Start } from './follower.ts';
import { Dialog, Field, Problem } from './ui.tsx';

type Kind = 'last' | 'oldest' | 'since' | 'after' | 'live';

const KINDS: [Kind, string][] = [
  ['last', 'The newest messages, and what follows'],
  ['oldest', 'Everything that is kept'],
  ['since', 'Since a time'],
  ['after', 'After a cursor'],
  ['live', 'New messages only'],
];
/** More than any topic keeps. */
const ALL = 2 ** 31 - 1;

/** The start that was chosen, or what is missing. */
export function startOf(kind: Kind, text: string): Start | string {
  const given = text.trim();
  switch (kind) {
    case 'live':
      return {};
    case 'oldest':
      return { last: ALL };
    case 'last':
      return /^[1-9]\d{0,8}$/.test(given) ? { last: Number(given) } : 'Give a number of messages, from 1.';
    case 'since': {
      const at = Date.parse(given);
      return Number.isNaN(at) ? 'Give a date and a time.' : { since: new Date(at).toISOString() };
    }
    case 'after':
      return given ? { after: given } : 'Give a cursor: each message shows its own.';
  }
}

/** The local time an hour ago, as the field for it takes it. */
function anHourAgo(): string {
  const at = new Date(Date.now() - 3_600_000);
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

export function Position({ onReplay }: { onReplay: (start: Start) => void }) {
  const [isOpen, setOpen] = useState(false);
  return (
    <>
      <button type="button" class="small" onClick={() => setOpen(true)}>
        Replay…
      </button>
      <Dialog title="Replay" isOpen={isOpen} onClose={() => setOpen(false)}>
        <Form
          onCancel={() => setOpen(false)}
          onReplay={(start) => {
            setOpen(false);
            onReplay(start);
          }}
        />
      </Dialog>
    </>
  );
}

function Form({ onReplay, onCancel }: { onReplay: (start: Start) => void; onCancel: () => void }) {
  const [kind, setKind] = useState<Kind>('last');
  const [texts, setTexts] = useState<Record<Kind, string>>({ last: '100', since: anHourAgo(), after: '', oldest: '', live: '' });
  const [problem, setProblem] = useState('');
  const submit = (event: Event) => {
    event.preventDefault();
    const start = startOf(kind, texts[kind]);
    if (typeof start === 'string') setProblem(start);
    else onReplay(start);
  };
  const common = {
    value: texts[kind],
    autocomplete: 'off',
    spellcheck: false,
    onInput: (event: { currentTarget: HTMLInputElement }) => setTexts({ ...texts, [kind]: event.currentTarget.value }),
  } as const;
  return (
    <form onSubmit={submit} noValidate>
      <fieldset>
        <legend>Show</legend>
        {KINDS.map(([value, label]) => (
          <label class="choice" key={value}>
            <input
              type="radio"
              name="position"
              checked={kind === value}
              onChange={() => {
                setKind(value);
                setProblem('');
              }}
            />
            {label}
          </label>
        ))}
      </fieldset>
      {kind === 'last' && (
        <Field label="Number of messages">{({ id }) => <input id={id} type="number" inputMode="numeric" min={1} {...common} />}</Field>
      )}
      {kind === 'since' && (
        <Field label="Time" hint="In the time zone of this browser">
          {({ id, hint }) => <input id={id} aria-describedby={hint} type="datetime-local" step={1} {...common} />}
        </Field>
      )}
      {kind === 'after' && (
        <Field label="Cursor" hint="What was missed since then stands in the tail as a gap">
          {({ id, hint }) => <input id={id} aria-describedby={hint} class="mono" {...common} />}
        </Field>
      )}
      <Problem text={problem} />
      <div class="actions">
        <button type="button" onClick={onCancel}>
          Cancel
        </button>
        <button type="submit" class="primary">
          Replay
        </button>
      </div>
    </form>
  );
}
