// Who reads a topic: its live subscriptions, and its consumers with their positions.

import { useState } from 'preact/hooks';
import { execute } from './api.ts';
import { AcknowledgeDocument, DeleteConsumerDocument, DisconnectDocument, SeekConsumerDocument } from './generated.ts';
import type { ConsumersQuery, SeekInput, SubscriptionsQuery, TopicQuery } from './generated.ts';
import { access, now } from './page.ts';
import { isNoRight, type Answer } from './store.ts';
import { Confirm, useAction } from './topic-forms.tsx';
import { Problem } from './ui.tsx';
import { ago, count } from './words.ts';

export type Subscription = NonNullable<SubscriptionsQuery['topic']>['subscriptions'][number];
export type Consumer = ConsumersQuery['consumers'][number];
type Topic = NonNullable<TopicQuery['topic']>;

/** Why a list is not there. */
function Missing({ what, answer }: { what: string; answer: Answer<unknown> }) {
  if (!isNoRight(answer.problem)) return <p class="faint">{answer.problem?.message ?? 'Reading…'}</p>;
  const who = access.value.credential ? 'your key or token does not have' : 'those who are not signed in do not have';
  return (
    <p class="faint">
      {what} need the right to statistics, which {who}.
    </p>
  );
}

const STATES: Record<string, string> = {
  CAUGHT_UP: 'Caught up',
  CATCHING_UP: 'Catching up',
  BEHIND: 'Behind',
  STALLED: 'Stalled',
};

/** Who has subscribed, in a few words. */
function whoIs(one: Subscription): string {
  const who = [one.principal, one.door, one.address].filter(Boolean).join(' · ');
  return one.pattern ? `${who} · through ${one.pattern}` : who;
}

/** What there is to know beside the lag. */
function details(one: Subscription): string {
  const parts = [`since ${ago(one.since, now.value)}`];
  if (one.lag > 0) parts.push(`${(one.lagMs / 1000).toFixed(1)} s behind`);
  if (one.missed > 0) parts.push(`${count(one.missed)} missed`);
  if (one.filterHitRate !== null) parts.push(`filter passes ${Math.round(one.filterHitRate * 100)} %`);
  if (one.overflow !== 'HISTORY') parts.push(one.overflow);
  return parts.join(' · ');
}

function SubscriptionLine({ one, onEnd }: { one: Subscription; onEnd: () => void }) {
  return (
    <>
      <tr class="first">
        <td class={one.state === 'CAUGHT_UP' ? '' : 'behind'}>{STATES[one.state] ?? one.state}</td>
        <td class="number">{count(one.lag)}</td>
        <td>{one.consumer ?? <span class="faint">–</span>}</td>
        <td>{whoIs(one)}</td>
      </tr>
      <tr>
        <td colSpan={4}>
          <div class="actions">
            <span class="faint">{details(one)}</span>
            <button type="button" class="small danger" aria-label={`Disconnect ${one.consumer ?? one.id}`} onClick={onEnd}>
              Disconnect
            </button>
          </div>
        </td>
      </tr>
    </>
  );
}

export function Subscriptions({ answer }: { answer: Answer<Subscription[]> }) {
  const [doomed, setDoomed] = useState<Subscription | null>(null);
  const list = answer.value;
  const end = async () => {
    if (doomed) await execute(DisconnectDocument, { id: doomed.id });
  };
  return (
    <section class="card" aria-labelledby="subscriptions-title">
      <h2 id="subscriptions-title">
        Subscriptions {list && <span class="tally">{count(list.length)}</span>}
      </h2>
      {!list && <Missing what="The subscriptions" answer={answer} />}
      {list?.length === 0 && <p class="faint">Nobody has subscribed.</p>}
      {list && list.length > 0 && (
        <div class="scrolls">
          <table>
            <thead>
              <tr>
                <th scope="col">State</th>
                <th scope="col" class="number">
                  Lag
                </th>
                <th scope="col">Consumer</th>
                <th scope="col">Who</th>
              </tr>
            </thead>
            <tbody>
              {list.slice(0, SHOWN).map((one) => (
                <SubscriptionLine key={one.id} one={one} onEnd={() => setDoomed(one)} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {list && list.length >= SHOWN && <p class="faint">Those that are further behind are shown, up to {count(SHOWN)}.</p>}
      <Confirm
        title="End the subscription"
        text={`The subscription of ${doomed ? whoIs(doomed) : ''} ends. Its client may subscribe again.`}
        action="Disconnect"
        isOpen={doomed !== null}
        act={end}
        onClose={() => setDoomed(null)}
      />
    </section>
  );
}

/** So many lines of a list are shown. */
const SHOWN = 100;

/** How many messages a consumer has not acknowledged. Offsets of a clustered engine are not dense: then it is an estimate. */
export function lagOf(consumer: Consumer, topic: Topic, factor: number | null): number {
  const position = consumer.positions.find((one) => one.topic === topic.name);
  if (!position) return 0;
  return Math.max(0, Math.round((topic.lastOffset - position.offset) * (factor ?? 1)));
}

/** Where a consumer can be moved. */
const TARGETS: Record<string, SeekInput> = {
  oldest: { since: '1970-01-01T00:00:00Z' },
  last: { last: 1 },
  end: { last: 0 },
};

/** Moves a consumer to another position. */
function Seek({ consumer, topic }: { consumer: Consumer; topic: Topic }) {
  const [target, setTarget] = useState('');
  const { name, owner } = consumer;
  const { run, problem, isBusy } = useAction(async () => {
    const to = TARGETS[target];
    if (to) await execute(SeekConsumerDocument, { topic: topic.name, consumer: name, owner, to });
    setTarget('');
  });
  return (
    <>
      <select class="small" aria-label={`Move ${name} to`} value={target} onChange={(event) => setTarget(event.currentTarget.value)}>
        <option value="">Move to…</option>
        <option value="oldest">the oldest message</option>
        <option value="last">the last message</option>
        <option value="end">the end</option>
      </select>
      {target !== '' && (
        <button type="button" class="small" disabled={isBusy} aria-label={`Move ${name}`} onClick={run}>
          Move
        </button>
      )}
      <Problem text={problem} />
    </>
  );
}

function ConsumerLine(props: { consumer: Consumer; topic: Topic; factor: number | null; onDelete: () => void }) {
  const { consumer, topic, factor, onDelete } = props;
  const position = consumer.positions.find((one) => one.topic === topic.name);
  const lag = lagOf(consumer, topic, factor);
  const { run, problem, isBusy } = useAction(async () => {
    const { name, owner } = consumer;
    // The end as the page has read it: what was published after that stays unacknowledged.
    await execute(AcknowledgeDocument, { topic: topic.name, consumer: name, owner, cursor: topic.cursor });
  });
  const { name, owner, ack, connected, lastUsedAt } = consumer;
  return (
    <>
      <tr class="first">
        <th scope="row">{name}</th>
        <td class="number">{position ? count(position.offset) : '–'}</td>
        <td class={`number ${lag > 0 ? 'behind' : ''}`}>
          {factor !== null && factor !== 1 && lag > 0 ? '≈ ' : ''}
          {count(lag)}
        </td>
      </tr>
      <tr>
        <td colSpan={3}>
          <div class="actions">
            <span class="faint">
              {connected ? 'connected' : `used ${ago(lastUsedAt, now.value)}`} · {ack === 'AUTO' ? 'automatic' : 'explicit'}
              {owner ? ` · ${owner}` : ''}
            </span>
            <button type="button" class="small" disabled={isBusy || lag === 0} aria-label={`Acknowledge all for ${name}`} onClick={run}>
              Acknowledge all
            </button>
            <Seek consumer={consumer} topic={topic} />
            <button type="button" class="small danger" aria-label={`Delete the consumer ${name}`} onClick={onDelete}>
              Delete
            </button>
          </div>
          <Problem text={problem} />
        </td>
      </tr>
    </>
  );
}

export function Consumers(props: { answer: Answer<Consumer[]>; topic: Topic; factor: number | null }) {
  const { answer, topic, factor } = props;
  const [doomed, setDoomed] = useState<Consumer | null>(null);
  const list = answer.value;
  const remove = async () => {
    if (doomed) await execute(DeleteConsumerDocument, { topic: topic.name, consumer: doomed.name, owner: doomed.owner });
  };
  return (
    <section class="card" aria-labelledby="consumers-title">
      <h2 id="consumers-title">
        Consumers {list && <span class="tally">{count(list.length)}</span>}
      </h2>
      {!list && <Missing what="The consumers" answer={answer} />}
      {list?.length === 0 && (
        <p class="faint">
          No named consumers. A subscription with <code>consumer: "name"</code> makes one, and the server then keeps its
          position.
        </p>
      )}
      {list && list.length > 0 && (
        <div class="scrolls">
          <table>
            <thead>
              <tr>
                <th scope="col">Consumer</th>
                <th scope="col" class="number">
                  Position
                </th>
                <th scope="col" class="number">
                  Lag
                </th>
              </tr>
            </thead>
            <tbody>
              {list.slice(0, SHOWN).map((consumer) => (
                <ConsumerLine
                  key={`${consumer.owner} ${consumer.name}`}
                  consumer={consumer}
                  topic={topic}
                  factor={factor}
                  onDelete={() => setDoomed(consumer)}
                />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {list && list.length > SHOWN && <p class="faint">The {count(list.length - SHOWN)} others are not shown.</p>}
      <Confirm
        title="Delete the consumer"
        text={`The server forgets “${doomed?.name}” and its position, and ends its subscription if it has one.`}
        action="Delete"
        isOpen={doomed !== null}
        act={remove}
        onClose={() => setDoomed(null)}
      />
    </section>
  );
}
