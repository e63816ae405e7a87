// Everything about one row of the tail, with what can be done from there.

import { useState } from 'preact/hooks';
import { execute } from './api.ts';
import type { Start } from './follower.ts';
import { AcknowledgeDocument } from './generated.ts';
import { pretty } from './json.ts';
import type { Consumer } from './readers.tsx';
import type { Row } from './tail.ts';
import { useAction } from './topic-forms.tsx';
import { Copy, Problem } from './ui.tsx';
import { date, missedIn, offsetsOf, reasonOf } from './words.ts';

/** So many consumers can be chosen from. */
const CHOICES = 100;

/** Moves a consumer's position behind a message. */
function Acknowledge({ topic, cursor, consumers }: { topic: string; cursor: string; consumers: Consumer[] }) {
  const [chosen, setChosen] = useState(0);
  const [done, setDone] = useState('');
  const { run, problem, isBusy } = useAction(async () => {
    const consumer = consumers[chosen];
    if (!consumer) return;
    setDone('');
    await execute(AcknowledgeDocument, { topic, consumer: consumer.name, owner: consumer.owner, cursor });
    setDone('Done');
  });
  return (
    <form class="acknowledge" onSubmit={run}>
      <label>
        <span>Acknowledge up to here for</span>
        <select value={chosen} onChange={(event) => setChosen(Number(event.currentTarget.value))}>
          {consumers.slice(0, CHOICES).map(({ name, owner }, index) => (
            <option key={`${owner} ${name}`} value={index}>
              {owner ? `${name} (${owner})` : name}
            </option>
          ))}
        </select>
      </label>
      <button type="submit" class="small" disabled={isBusy}>
        Acknowledge
      </button>
      <span role="status" class="done">
        {done}
      </span>
      <Problem text={problem} />
    </form>
  );
}

type DetailsProps = {
  topic: string;
  row: Row;
  consumers: Consumer[];
  onReplay: (start: Start) => void;
  onClose: () => void;
};

export function Details({ topic, row, consumers, onReplay, onClose }: DetailsProps) {
  const close = (
    <button type="button" class="small" onClick={onClose}>
      Close
    </button>
  );
  if (row.kind === 'note') return null;
  if (row.kind === 'gap') {
    return (
      <section class="details" aria-label="The gap">
        <div class="actions">
          <h3>{missedIn(row.gap)}</h3>
          {close}
        </div>
        <p>
          {offsetsOf(row.gap) && `They are ${offsetsOf(row.gap)}. `}Reason: {reasonOf(row.gap)} (<code>{row.gap.reason}</code>).
        </p>
      </section>
    );
  }
  const { message } = row;
  return (
    <section class="details" aria-label={`Message ${message.offset}`}>
      <div class="actions">
        <h3>Message {message.offset}</h3>
        <Copy text={message.text} label="Copy data" />
        <Copy text={message.cursor} label="Copy cursor" />
        <button type="button" class="small" onClick={() => onReplay({ after: message.cursor })}>
          Replay after it
        </button>
        {close}
      </div>
      <dl>
        <dt>Published</dt>
        <dd>
          {date(message.publishedAt)} <span class="faint utc">{message.publishedAt}</span>
        </dd>
        {message.key !== null && (
          <>
            <dt>Key</dt>
            <dd>
              {message.key}
              {message.removed && <span class="faint"> removed</span>}
            </dd>
          </>
        )}
        <dt>Id</dt>
        <dd>{message.messageId}</dd>
        {message.headers !== null && (
          <>
            <dt>Headers</dt>
            <dd>
              {Object.entries(message.headers).map(([name, value]) => (
                <div key={name}>
                  {name}: {value}
                </div>
              ))}
            </dd>
          </>
        )}
        <dt>Cursor</dt>
        <dd>{message.cursor}</dd>
      </dl>
      <pre tabIndex={0} aria-label="Data">
        {pretty(message.text)}
      </pre>
      {consumers.length > 0 && <Acknowledge topic={topic} cursor={message.cursor} consumers={consumers} />}
    </section>
  );
}
