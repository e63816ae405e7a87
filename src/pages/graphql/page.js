// Runs operations of all kinds as event streams, by the protocol GraphQL over SSE. A subscription whose connection breaks
// goes on after the last position that the server gave (`id:`), so that nothing is lost and nothing comes twice.

import * as signIn from './sign-in.js';

const EXAMPLES = {
  'See what is there': {
    query: `query Overview {
  health { status version uptimeSeconds }
  topics(first: 20) {
    totalCount
    nodes { name messageCount lastOffset subscriberCount }
  }
}`,
  },
  'Subscribe to a topic': {
    query: `subscription Subscribe {
  messages(topic: "orders.>", last: 10) {
    topic
    offset
    data
    gap { missed reason }
  }
}`,
  },
  'Publish a message': {
    query: `mutation Publish($data: JSON!) {
  publish(topic: "orders.eu", data: $data) {
    id
    offset
    cursor
  }
}`,
    variables: '{ "data": { "order": 1001, "total": 49.9 } }',
  },
  'Read a topic’s history': {
    query: `query History {
  topic(name: "orders.eu") {
    messages(last: 10) {
      nodes { offset data publishedAt }
      pageInfo { hasPreviousPage endCursor }
    }
  }
}`,
  },
};
/** So many results stay on the page. */
const KEPT = 200;
/** A browser opens six connections to one server, and one has to be free for what is run next. */
const MAX_SUBSCRIPTIONS = 5;
/** The shortest and the longest time between two attempts to connect, in milliseconds. */
const WAITS = [500, 10_000];
/** A subscription that ends with one of these codes is sent again. */
const RETRIED = ['UNAVAILABLE', 'LIMIT_REACHED', 'SLOW_CONSUMER'];
/** The code of an error by which the server asks for a credential, or another one. */
const UNAUTHENTICATED = 'UNAUTHENTICATED';
/** The server sends a comment at least every `PING_INTERVAL`. After a longer silence the connection is considered dead. */
const SILENCE = 120_000;

const element = (id) => document.getElementById(id);
const [form, example, query, variables] = ['ask', 'example', 'query', 'variables'].map(element);
const [state, running, results] = ['state', 'running', 'results'].map(element);

/** Running operations by id. */
const operations = new Map();
let lastId = 0;

function make(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function show(title, content, kind = '') {
  const time = new Date().toLocaleTimeString();
  const text = typeof content === 'string' ? content : JSON.stringify(content, null, 2);
  results.prepend(make('li', { className: kind }, make('h3', {}, `${time} ${title}`), make('pre', {}, text)));
  while (results.children.length > KEPT) results.lastElementChild.remove();
}

/** Shows what was missed where it was missed, and then the result itself. */
function showResult(operation, result) {
  const { gap, deleted } = result.extensions ?? {};
  if (gap) {
    const count = gap.missed ?? 'an unknown number of';
    const which = gap.missed === 0 ? '' : ` (offsets ${gap.fromOffset} to ${gap.toOffset})`;
    show(operation.title, `Gap in ${gap.topic}: ${count} messages were missed${which}: ${gap.reason}`, 'gap');
  }
  if (deleted) show(operation.title, `The topic ${deleted.topic} was deleted with messages that were not delivered.`, 'gap');
  const empty = result.data?.messages === null && !result.errors && (gap || deleted);
  if (!empty) show(operation.title, result, result.errors ? 'bad' : '');
}

function showState() {
  const all = [...operations.values()].filter(({ subscribes }) => subscribes);
  const live = all.filter((operation) => operation.live).length;
  if (live < all.length) state.textContent = `Reconnecting (${live} of ${all.length} subscriptions are live)`;
  else state.textContent = all.length ? `${live} live` : 'Ready';
}

function forget(id) {
  operations.get(id)?.entry.remove();
  operations.delete(id);
  showState();
}

function stop(id) {
  const { title, abort } = operations.get(id);
  abort.abort();
  show(title, 'Stopped.');
  forget(id);
  query.focus();
}

/** The server wants a credential, or another one. */
class Unauthenticated extends Error {}

/** Yields the events of a stream as the HTML standard parses them, and comments as `comment`. */
async function* events(body, alive) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    alive();
    text += value;
    const blocks = text.split('\n\n');
    text = blocks.pop();
    for (const block of blocks) {
      const event = { data: [] };
      for (const line of block.split('\n')) {
        const at = line.indexOf(':');
        const [field, content] = at < 0 ? [line, ''] : [line.slice(0, at), line.slice(at + 1).replace(/^ /, '')];
        if (field === 'data') event.data.push(content);
        else event[field || 'comment'] = content;
      }
      yield { ...event, data: event.data.join('\n') };
    }
  }
}

/** Connects once. Returns whether the operation is over; throws if the connection breaks. */
async function connect(operation) {
  const connection = new AbortController();
  operation.abort.signal.addEventListener('abort', () => connection.abort());
  let timer;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => connection.abort(), SILENCE);
  };
  try {
    alive();
    operation.credential = signIn.current();
    const headers = { 'content-type': 'application/json', accept: 'text/event-stream', ...signIn.headers() };
    if (operation.position) headers['last-event-id'] = operation.position;
    const body = JSON.stringify(operation.request);
    const response = await fetch(window.location.pathname, { method: 'POST', headers, body, signal: connection.signal });
    // The server has executed nothing. It is sent again when the person has signed in.
    if (response.status === 401) throw new Unauthenticated(await signIn.messageIn(response));
    if (!response.headers.get('content-type')?.startsWith('text/event-stream')) {
      const text = await response.text();
      // The server cannot serve it at the moment.
      if (response.status >= 500 || response.status === 429) throw new Error(text || response.statusText);
      show(operation.title, text || response.statusText, 'bad');
      return true;
    }
    return await read(operation, events(response.body, alive));
  } finally {
    clearTimeout(timer);
    connection.abort();
  }
}

async function read(operation, stream) {
  for await (const { event, id, comment, data } of stream) {
    const position = id ?? comment?.match(/^subscribed (\S+)/)?.[1];
    if (position) operation.position = position;
    if (comment?.startsWith('subscribed ') && !operation.live) {
      operation.live = true;
      operation.wait = WAITS[0];
      if (operation.broken) show(operation.title, 'Connected again. It goes on after the last message that came.');
      operation.broken = false;
      showState();
    }
    if (event === 'next') {
      const result = JSON.parse(data);
      const error = result.errors?.[0];
      if (error?.extensions?.code === UNAUTHENTICATED) {
        if (operation.subscribes) throw new Unauthenticated(error.message);
        // It was executed in part, so it is not sent again.
        signIn.ask(operation.credential, error.message);
      }
      if (operation.subscribes && RETRIED.includes(error?.extensions?.code)) throw new Error(error.message);
      showResult(operation, result);
    }
    if (event === 'complete') return true;
  }
  throw new Error('the server ended the connection');
}

/**
 * Runs an operation to its end. Only a subscription is sent again: a mutation may have been executed, unless the server has
 * refused the request for its credential.
 */
async function follow(operation) {
  for (;;) {
    let problem;
    try {
      if (await connect(operation)) break;
    } catch (error) {
      problem = error;
    }
    operation.live = false;
    if (operation.abort.signal.aborted) return;
    if (problem instanceof Unauthenticated) {
      showState();
      const hasSignedIn = await signIn.ask(operation.credential, problem.message);
      if (operation.abort.signal.aborted) return;
      if (hasSignedIn) continue;
      show(operation.title, problem.message, 'bad');
      break;
    }
    problem = problem.message;
    if (!operation.subscribes) {
      show(operation.title, `No result came: ${problem}. Check whether it was executed before you run it again.`, 'bad');
      break;
    }
    if (!operation.broken) show(operation.title, `The connection broke (${problem}). Connecting again.`, 'gap');
    operation.broken = true;
    showState();
    // Clients whose server restarts must not come back all at once.
    await new Promise((resolve) => setTimeout(resolve, operation.wait * (0.5 + Math.random() / 2)));
    operation.wait = Math.min(operation.wait * 2, WAITS[1]);
    if (operation.abort.signal.aborted) return;
  }
  forget(operation.id);
}

function run() {
  let given;
  try {
    given = variables.value.trim() ? JSON.parse(variables.value) : undefined;
  } catch (error) {
    show('variables', `Not JSON: ${error.message}`, 'bad');
    return;
  }
  const [, kind = 'query', name = ''] = query.value.match(/^\s*(query|mutation|subscription)\b\s*(\w*)/m) ?? [];
  const subscribes = kind === 'subscription';
  if (subscribes && [...operations.values()].filter((other) => other.subscribes).length >= MAX_SUBSCRIPTIONS) {
    show('subscription', `Stop one of the ${MAX_SUBSCRIPTIONS} running subscriptions first.`, 'bad');
    return;
  }
  const id = `${(lastId += 1)}`;
  const title = `${kind} ${name} #${id}`.replace('  ', ' ');
  const button = make('button', { type: 'button', onclick: () => stop(id) }, `Stop ${title}`);
  const request = { query: query.value, variables: given };
  const entry = make('li', {}, button);
  const operation = { id, title, request, entry, subscribes, abort: new AbortController(), wait: WAITS[0] };
  operations.set(id, operation);
  running.append(entry);
  showState();
  follow(operation);
}

function choose() {
  const chosen = EXAMPLES[example.value];
  query.value = chosen.query;
  variables.value = chosen.variables ?? '';
}

for (const name of Object.keys(EXAMPLES)) example.append(make('option', {}, name));
choose();
example.onchange = choose;
form.onsubmit = (event) => {
  event.preventDefault();
  run();
};
form.onkeydown = (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.requestSubmit();
};
// What was subscribed to with a credential ends with it.
signIn.onSignOut(() => [...operations.keys()].forEach(stop));
element('clear').onclick = () => results.replaceChildren();
