// Who reads a topic: its live subscriptions, and its consumers with their positions.

import { useState } from 'preact/hooks';
import { execute } from './api.ts';
import { AcknowledgeDocument, DeleteConsumerDocument } from './generated.ts';
import type { ConsumersQuery, SubscriptionsQuery, TopicQuery } from './generated.ts';
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

const STATES: Record<string, string> = { CAUGHT_UP: 'Caught up', BEHIND: 'Behind' };

export function Subscriptions({ answer }: { answer: Answer<Subscription[]> }) {
  const list = answer.value;
  return (
    <section class="card" aria-labelledby="subscriptions-title">
      <h2 id="subscriptions-title">
        Subscriptions {list && <span class="tally">{count(list.length)}</span>}
      </h2>
      {!list && <Missing what="The subscriptions" answer={answer} />}
      {list?.length === 0 && <p class="faint">Nobody has subscribed to exactly this topic. Those through patterns are counted above.</p>}
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
                <th scope="col">Principal</th>
                <th scope="col">If behind</th>
              </tr>
            </thead>
            <tbody>
              {list.slice(0, SHOWN).map((one, index) => (
                <tr key={index}>
                  <td class={one.state === 'BEHIND' ? 'behind' : ''}>{STATES[one.state] ?? one.state}</td>
                  <td class="number">{count(one.lag)}</td>
                  <td>{one.consumer ?? <span class="faint">–</span>}</td>
                  <td>{one.principal ?? <span class="faint">–</span>}</td>
                  <td>
                    <code>{one.overflow}</code>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {list && list.length > SHOWN && <p class="faint">The {count(list.length - SHOWN)} others are not shown.</p>}
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
