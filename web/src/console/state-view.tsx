// The state of a topic: a table of its keys with their newest values, which is kept up to date while it is open.

import { signal } from '@preact/signals';
import { useEffect, useId, useMemo, useState } from 'preact/hooks';
import { execute, session } from './api.ts';
import { Follower, type Start } from './follower.ts';
import { TopicDocument } from './generated.ts';
import { anotherCredential, line } from './page.ts';
import { MAX_KEYS, Values } from './values.ts';
import { clock, count, counted } from './words.ts';

/** So many keys are shown at once. */
const PAGE = 25;
/** A new prefix counts when nothing was typed for so long, in milliseconds. */
const TYPED_MS = 300;

/** The values of the keys that begin with a prefix. `version` changes at most once a frame. */
function useValues(topic: string, prefix: string, attempt: number) {
  const state = useMemo(() => {
    const values = new Values();
    const version = signal(0);
    let isDue = false;
    const changed = () => {
      if (isDue) return;
      isDue = true;
      requestAnimationFrame(() => {
        isDue = false;
        version.value += 1;
      });
    };
    const start: Start = prefix === '' ? { state: true } : { state: true, filter: { field: '$key', startsWith: prefix } };
    const follower = new Follower(topic, start, values, {
      changed,
      connected: () => line.connected(),
      onAcknowledged: (ack, listener) => line.onAcknowledged(ack, listener),
      exists: async () => (await execute(TopicDocument, { name: topic }, { unasked: true })).topic !== null,
      ask: (message) => session.ask(message),
      anotherCredential,
      sleep: (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds)),
    });
    return { values, version, follower };
  }, [topic, prefix, attempt]);
  useEffect(() => {
    void state.follower.run();
    return () => state.follower.stop();
  }, [state]);
  return state;
}

function Table({ values, first }: { values: Values; first: number }) {
  return (
    <div class="scrolls">
      <table>
        <thead>
          <tr>
            <th scope="col">Key</th>
            <th scope="col">Newest value</th>
            <th scope="col" class="number">
              Offset
            </th>
            <th scope="col">Time</th>
          </tr>
        </thead>
        <tbody>
          {values.slice(first, first + PAGE).map((value) => (
            <tr key={value.key}>
              <th scope="row">{value.key}</th>
              <td class="data">{value.text}</td>
              <td class="number">{count(value.offset)}</td>
              <td>{clock(value.publishedAt)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Keys({ topic }: { topic: string }) {
  const [typed, setTyped] = useState('');
  const [prefix, setPrefix] = useState('');
  const [attempt, setAttempt] = useState(0);
  const [at, setAt] = useState(0);
  const id = useId();
  const { values, version } = useValues(topic, prefix, attempt);
  void version.value;
  useEffect(() => {
    const timer = setTimeout(() => setPrefix(typed), TYPED_MS);
    return () => clearTimeout(timer);
  }, [typed]);
  // Keys may go while the last page is shown.
  const first = Math.min(at, Math.max(0, Math.floor((values.size - 1) / PAGE) * PAGE));
  const end = Math.min(first + PAGE, values.size);
  const all = values.isCut ? `more than ${count(MAX_KEYS)} keys` : counted(values.size, 'key');
  return (
    <>
      <div class="bar">
        <label for={id}>Keys that begin with</label>
        <input id={id} type="search" value={typed} onInput={(event) => setTyped(event.currentTarget.value)} />
        <span class="faint" role="status">
          {values.isComplete ? (values.size === 0 ? 'No keys' : `${count(first + 1)}–${count(end)} of ${all}`) : 'Reading the state…'}
        </span>
        <button type="button" class="small" disabled={first === 0} onClick={() => setAt(first - PAGE)}>
          Previous keys
        </button>
        <button type="button" class="small" disabled={end >= values.size} onClick={() => setAt(first + PAGE)}>
          Next keys
        </button>
      </div>
      {values.isUnsure && (
        <p class="problem" role="alert">
          Messages were missed, so a value may be an older one.{' '}
          <button type="button" class="small" onClick={() => setAttempt(attempt + 1)}>
            Read the state again
          </button>
        </p>
      )}
      {values.size > 0 && <Table values={values} first={first} />}
    </>
  );
}

/** It is read only while somebody looks at it. */
export function StateView({ topic }: { topic: string }) {
  const [isOpen, setOpen] = useState(false);
  return (
    <details class="card state" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <h2>State: the newest value of each key</h2>
      </summary>
      {isOpen && <Keys topic={topic} />}
    </details>
  );
}
