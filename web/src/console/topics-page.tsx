// The list of topics, live.

import { useEffect, useState } from 'preact/hooks';
import { endpoint, session } from './api.ts';
import { TopicEventsDocument, type TopicLineFragment } from './generated.ts';
import { access, line, now, repeat } from './page.ts';
import { Plot } from './plot.tsx';
import { addressOf } from './routes.ts';
import { publishCommand } from './shell.ts';
import { isNoRight, numbersOf, published, readStats, readTopics, stats, STEP, topics } from './store.ts';
import { TopicForm } from './topic-forms.tsx';
import { Command, Figure, Meter, Sparkline } from './ui.tsx';
import { ago, bytes, count, mostKept, rate } from './words.ts';

/** Calls `listener` whenever a topic is created, changed or deleted. Returns what ends that. */
function onTopicEvents(listener: () => void): () => void {
  let isOver = false;
  let stop = () => {};
  const follow = async () => {
    const client = await line.connected();
    if (isOver) return;
    const error = (cause: unknown) => {
      // The connection broke. A list of errors is the server's refusal, and the list of topics is read once a second anyway.
      if (!Array.isArray(cause) && !isOver) void follow();
    };
    stop = client.subscribe({ query: TopicEventsDocument.toString() }, { next: listener, error, complete: () => {} });
  };
  void follow();
  return () => {
    isOver = true;
    stop();
  };
}

function Line({ topic }: { topic: TopicLineFragment }) {
  const numbers = numbersOf(topic.name);
  const { value, isEstimate } = numbers.now;
  const { preview } = numbers;
  const isCurrent = preview?.epoch === topic.epoch;
  const last = topic.lastPublishedAt;
  return (
    <tr>
      <th scope="row">
        <a href={addressOf(topic.name)}>{topic.name}</a>
        <span class="below">
          {count(topic.messageCount)} of {count(mostKept(topic))} {topic.retention === 'LATEST_PER_KEY' ? 'keys' : 'kept'}{last ? ` · ${ago(last, now.value)}` : ''}
        </span>
      </th>
      <td class="trend">
        <Sparkline values={numbers.rate.series.values} />
      </td>
      <td class="number">{rate(value, isEstimate)}</td>
      <td class="number">{count(topic.subscriberCount)}</td>
      <td class="history">
        <span class="number">
          {count(topic.messageCount)} <span class="faint">/ {count(mostKept(topic))}</span>
        </span>
        <Meter value={topic.messageCount} max={mostKept(topic)} />
      </td>
      <td class="last">
        {last ? <time dateTime={last}>{ago(last, now.value)}</time> : <span class="faint">none yet</span>}
        {isCurrent && <code>{preview?.text.slice(0, 200)}</code>}
      </td>
    </tr>
  );
}

function Overview() {
  const { value, problem } = stats.value;
  const listed = topics.value.value;
  const total = published.mean();
  return (
    <section class="overview" aria-label="The whole server">
      <dl>
        <Figure name="Topics">{listed ? count(value?.topics ?? listed.totalCount) : '–'}</Figure>
        {value && (
          <>
            <Figure name="Messages / s">{rate(total)}</Figure>
            <Figure name="Subscribers" note="with this page">
              {count(value.subscribers)}
            </Figure>
            <Figure name="Messages kept" note={bytes(value.historyBytes)}>
              {count(value.messages)}
            </Figure>
          </>
        )}
      </dl>
      {isNoRight(problem) && listed && (
        <p class="faint aside">The numbers of the whole server need the right to statistics, which {access.value.credential ? 'your key or token does not have' : 'those who are not signed in do not have'}.</p>
      )}
      {value && <Plot title="Messages / s" times={published.series.times} curves={[{ name: 'published', now: rate(total), values: published.series.values }]} />}
    </section>
  );
}

function Empty({ prefix }: { prefix: string }) {
  if (prefix) return <p class="empty">No topic begins with “{prefix}”.</p>;
  return (
    <div class="empty">
      <h2>No topics yet</h2>
      <p>Create one here, or publish a message from a terminal: the first message creates its topic.</p>
      <Command text={publishCommand(endpoint, 'news', access.value.credential !== '')} />
    </div>
  );
}

function Table({ nodes }: { nodes: TopicLineFragment[] }) {
  return (
    <table class="topics">
      <thead>
        <tr>
          <th scope="col">Topic</th>
          <th scope="col" class="trend">
            <span class="unseen">Last minute</span>
          </th>
          <th scope="col" class="number">
            Msg / s
          </th>
          <th scope="col" class="number">
            Subscribers
          </th>
          <th scope="col" class="history">
            History
          </th>
          <th scope="col" class="last">
            Last message
          </th>
        </tr>
      </thead>
      <tbody>
        {nodes.map((topic) => (
          <Line key={topic.name} topic={topic} />
        ))}
      </tbody>
    </table>
  );
}

/** Why there is no list. */
export function NoAccess({ message }: { message: string }) {
  return (
    <div class="empty">
      <h2>Sign in to go on</h2>
      <p>{message}</p>
      <button type="button" class="primary" onClick={() => void session.ask()}>
        Sign in
      </button>
    </div>
  );
}

function List({ prefix, more }: { prefix: string; more: () => void }) {
  const { value, problem } = topics.value;
  if (!value) {
    if (problem?.code === 'UNAUTHENTICATED') return <NoAccess message={problem.message} />;
    return <p class="empty">{problem?.message ?? 'Reading the list of topics…'}</p>;
  }
  if (value.nodes.length === 0) return <Empty prefix={prefix} />;
  return (
    <>
      <Table nodes={value.nodes} />
      {value.pageInfo.hasNextPage && (
        <p class="more">
          {count(value.nodes.length)} of {count(value.totalCount)} topics{' '}
          <button type="button" class="small" onClick={more}>
            Show more
          </button>
        </p>
      )}
    </>
  );
}

export function TopicsPage() {
  const [prefix, setPrefix] = useState('');
  const [first, setFirst] = useState(STEP);
  const [isNew, setNew] = useState(false);
  const { credential } = access.value;
  useEffect(() => {
    let isReading = false;
    const read = async () => {
      // However many topics change at once: what this does not see, the next reading does.
      if (isReading) return;
      isReading = true;
      await readTopics(prefix, first);
      isReading = false;
    };
    const ends = [repeat(() => Promise.all([read(), readStats()]).then(() => {})), onTopicEvents(() => void read())];
    return () => ends.forEach((end) => end());
  }, [prefix, first, credential]);
  return (
    <main class="topics-page">
      <div class="title">
        <h1 tabIndex={-1}>Topics</h1>
        <input
          type="search"
          aria-label="Begins with"
          placeholder="Begins with…"
          autocomplete="off"
          spellcheck={false}
          value={prefix}
          onInput={(event) => setPrefix(event.currentTarget.value)}
        />
        <button type="button" class="primary" onClick={() => setNew(true)}>
          New topic
        </button>
      </div>
      {topics.value.problem?.code !== 'UNAUTHENTICATED' && <Overview />}
      <List prefix={prefix} more={() => setFirst(first + STEP)} />
      <TopicForm isOpen={isNew} onClose={() => setNew(false)} />
    </main>
  );
}
