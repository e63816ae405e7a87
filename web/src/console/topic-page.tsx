// One topic: its figures, its tail, publishing, and who reads it.

import { useEffect, useState } from 'preact/hooks';
import { execute, Refused } from './api.ts';
import { ConsumersDocument, CreateTopicDocument, SubscriptionsDocument, TopicDocument } from './generated.ts';
import type { TopicQuery } from './generated.ts';
import { access, now, repeat } from './page.ts';
import { Plot } from './plot.tsx';
import { Publish } from './publish.tsx';
import { Consumers, lagOf, Subscriptions, type Consumer, type Subscription } from './readers.tsx';
import { Series } from './samples.ts';
import { StateView } from './state-view.tsx';
import { isNoRight, numbersOf, problemOf, type Answer } from './store.ts';
import { TailView } from './tail-view.tsx';
import { DeleteTopic, TopicForm, useAction } from './topic-forms.tsx';
import { NoAccess } from './topics-page.tsx';
import { Figure, Meter, Problem } from './ui.tsx';
import { ago, count, date, mostKept, rate } from './words.ts';

type Topic = NonNullable<TopicQuery['topic']>;

/** What was read of a topic. A topic that does not exist is `null` without a problem. */
type Readings = {
  topic: Answer<Topic> & { isRead: boolean };
  subscriptions: Answer<Subscription[]>;
  consumers: Answer<Consumer[]>;
};

const none = { value: null, problem: null };
const nothing: Readings = { topic: { ...none, isRead: false }, subscriptions: none, consumers: none };

/** The answer to one request. Without an answer, what was read before stays. */
async function answer<T>(request: Promise<T | null>, before: Answer<T>): Promise<Answer<T>> {
  try {
    return { value: await request, problem: null };
  } catch (error) {
    return { value: error instanceof Refused ? null : before.value, problem: problemOf(error) };
  }
}

/** So many lines of a list are read in a second: a longer one is read less often. */
const LINES_A_SECOND = 500;

/** Whether a list is read in this second. One that the credential does not allow is not asked for again. */
function isDue({ value, problem }: Answer<unknown[]>, second: number): boolean {
  return !isNoRight(problem) && second % Math.max(1, Math.ceil((value?.length ?? 0) / LINES_A_SECOND)) === 0;
}

function useReadings(name: string, credential: string) {
  const [readings, setReadings] = useState(nothing);
  const [lags, setLags] = useState({ subscriptions: new Series(), consumers: new Series() });
  useEffect(() => {
    let last = nothing;
    let second = 0;
    const series = { subscriptions: new Series(), consumers: new Series() };
    setReadings(nothing);
    setLags(series);
    const unasked = { unasked: true };
    const read = async () => {
      second += 1;
      const [topic, subscriptions, consumers] = await Promise.all([
        answer(execute(TopicDocument, { name }, unasked).then((data) => data.topic), last.topic),
        isDue(last.subscriptions, second)
          ? answer(execute(SubscriptionsDocument, { name }, unasked).then((data) => data.topic?.subscriptions ?? []), last.subscriptions)
          : last.subscriptions,
        isDue(last.consumers, second)
          ? answer(execute(ConsumersDocument, { name }, unasked).then((data) => data.consumers), last.consumers)
          : last.consumers,
      ]);
      last = { topic: { ...topic, isRead: true }, subscriptions, consumers };
      const numbers = numbersOf(name);
      const at = Date.now();
      if (topic.value && !topic.problem) {
        const { value } = topic;
        numbers.read(at, value);
        if (numbers.factor === null) await numbers.readPreview(value);
        const most = (all: number[] | undefined) => (all ? all.reduce((a, b) => Math.max(a, b), 0) : null);
        series.subscriptions.push(at, most(subscriptions.value?.map(({ lag }) => lag)));
        series.consumers.push(at, most(consumers.value?.map((one) => lagOf(one, value, numbers.factor))));
      }
      setReadings(last);
    };
    return repeat(read);
  }, [name, credential]);
  return { readings, lags };
}

function Figures({ topic }: { topic: Topic }) {
  const { value, isEstimate } = numbersOf(topic.name).now;
  const isKeyed = topic.retention === 'LATEST_PER_KEY';
  const limit = topic.maxPublishRate === 0 ? 'no limit' : `at most ${count(topic.maxPublishRate)}`;
  return (
    <dl class="figures">
      <Figure name="Messages / s" note={limit}>
        {rate(value, isEstimate)}
      </Figure>
      <Figure
        name={isKeyed ? 'Keys' : 'History'}
        note={
          <>
            of {count(mostKept(topic))} {keptAs(topic)} <Meter value={topic.messageCount} max={mostKept(topic)} />
          </>
        }
      >
        {count(topic.messageCount)}
      </Figure>
      <Figure name="Newest offset" note={newestNote(topic)}>
        {count(topic.lastOffset)}
      </Figure>
      <Figure name="Subscribers" note="with this page">
        {count(topic.subscriberCount)}
      </Figure>
    </dl>
  );
}

/** What is kept, and for how long. */
function keptAs({ retention, maxAge }: Topic): string {
  if (retention === 'LATEST_PER_KEY') return 'keys, the newest of each';
  return maxAge === '0s' ? 'kept' : `kept for ${maxAge}`;
}

/** When the newest message came, and how often one is expected. */
function newestNote({ lastPublishedAt, expectEvery }: Topic): string {
  const came = lastPublishedAt ? ago(lastPublishedAt, now.value) : 'no message yet';
  return expectEvery ? `${came}, expected every ${expectEvery}` : came;
}

/** There is no topic of this name. */
function NoTopic({ name }: { name: string }) {
  const { run, problem, isBusy } = useAction(async () => {
    await execute(CreateTopicDocument, { name });
  });
  return (
    <form class="empty" onSubmit={run}>
      <h2>There is no topic “{name}”</h2>
      <p>It was deleted, or nobody has created it. If it appears, this page shows it.</p>
      <Problem text={problem} />
      <div class="actions">
        <a class="button" href="#/">
          All topics
        </a>
        <button type="submit" class="primary" disabled={isBusy}>
          Create it
        </button>
      </div>
    </form>
  );
}

function Lags({ lags, readings }: { lags: { subscriptions: Series; consumers: Series }; readings: Readings }) {
  const curve = (name: string, { values }: Series) => ({ name, now: values.at(-1) == null ? '–' : count(values.at(-1) ?? 0), values });
  if (!readings.subscriptions.value && !readings.consumers.value) return null;
  const curves = [curve('subscriptions', lags.subscriptions), curve('consumers', lags.consumers)];
  return <Plot title="Greatest lag" times={lags.subscriptions.times} curves={curves} />;
}

function Side({ topic, readings, lags }: { topic: Topic; readings: Readings; lags: { subscriptions: Series; consumers: Series } }) {
  const numbers = numbersOf(topic.name);
  const { value, isEstimate } = numbers.now;
  const { times, values } = numbers.rate.series;
  return (
    <div class="side">
      <Publish topic={topic.name} />
      <section class="card" aria-label="The last minutes">
        <Plot title="Messages / s" times={times} curves={[{ name: 'published', now: rate(value, isEstimate), values }]} />
        <Lags lags={lags} readings={readings} />
      </section>
      <Consumers answer={readings.consumers} topic={topic} factor={numbers.factor} />
      <Subscriptions answer={readings.subscriptions} />
    </div>
  );
}

export function TopicPage({ name }: { name: string }) {
  const { credential } = access.value;
  const { readings, lags } = useReadings(name, credential);
  const [dialog, setDialog] = useState<'change' | 'delete' | null>(null);
  const [last, setLast] = useState<Topic | null>(null);
  const { value, problem, isRead } = readings.topic;
  useEffect(() => {
    if (value) setLast(value);
    else if (problem?.code) setLast(null);
  }, [value, problem]);
  // A topic that is gone stays on the page: its tail says what happened, and goes on when there is one again.
  const topic = value ?? (last?.name === name ? last : null);
  return (
    <main class="topic-page">
      <div class="title">
        <nav aria-label="Breadcrumb">
          <a href="#/">Topics</a>
          <span aria-hidden="true"> / </span>
        </nav>
        <h1 tabIndex={-1}>{name}</h1>
        {value?.implicit && (
          <span class="badge" title="A publish or a subscription has made it. It goes away when it has no message and no subscriber.">
            implicit
          </span>
        )}
        {isRead && !value && topic && <span class="badge bad">does not exist now</span>}
        {topic && <span class="faint created">created {date(topic.createdAt)}</span>}
        {value && (
          <span class="actions">
            <button type="button" onClick={() => setDialog('change')}>
              Change
            </button>
            <button type="button" class="danger" onClick={() => setDialog('delete')}>
              Delete
            </button>
          </span>
        )}
      </div>
      {topic && <Figures topic={topic} />}
      {topic && (
        <div class="columns">
          <TailView key={name} topic={name} isEmpty={topic.lastOffset === 0} consumers={readings.consumers.value ?? []} />
          <Side topic={topic} readings={readings} lags={lags} />
        </div>
      )}
      {topic && <StateView key={name} topic={name} />}
      {!topic && isRead && !problem && <NoTopic name={name} />}
      {!topic && problem?.code === 'UNAUTHENTICATED' && <NoAccess message={problem.message} />}
      {!topic && problem && problem.code !== 'UNAUTHENTICATED' && <p class="empty">{problem.message}</p>}
      {!topic && !isRead && <p class="empty">Reading the topic…</p>}
      {value && (
        <>
          <TopicForm topic={value} isOpen={dialog === 'change'} onClose={() => setDialog(null)} />
          <DeleteTopic topic={value} isOpen={dialog === 'delete'} onClose={() => setDialog(null)} />
        </>
      )}
    </main>
  );
}
