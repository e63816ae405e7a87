// Runs operations of all kinds over one WebSocket by the protocol graphql-transport-ws.

const EXAMPLES = {
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
  'List the topics': {
    query: `query Topics {
  topics(first: 20) {
    totalCount
    nodes { name messageCount lastOffset subscriberCount }
  }
}`,
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

const element = (id) => document.getElementById(id);
const [form, example, query, variables] = ['ask', 'example', 'query', 'variables'].map(element);
const [state, running, results] = ['state', 'running', 'results'].map(element);

/** Running operations by id: their titles and their entries in the list. */
const operations = new Map();
let socket;
let acknowledged = false;
let lastId = 0;

function make(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function show(title, content, bad = false) {
  const time = new Date().toLocaleTimeString();
  const text = typeof content === 'string' ? content : JSON.stringify(content, null, 2);
  results.prepend(
    make('li', { className: bad ? 'bad' : '' }, make('h3', {}, `${time} ${title}`), make('pre', {}, text)),
  );
  while (results.children.length > KEPT) results.lastElementChild.remove();
}

function send(message) {
  socket.send(JSON.stringify(message));
}

function connect() {
  const address = new URL(window.location.pathname, window.location.href);
  address.protocol = address.protocol === 'https:' ? 'wss:' : 'ws:';
  state.textContent = 'Connecting';
  acknowledged = false;
  socket = new WebSocket(address, 'graphql-transport-ws');
  socket.onopen = () => send({ type: 'connection_init' });
  socket.onmessage = ({ data }) => receive(JSON.parse(data));
  socket.onclose = ({ code, reason }) => {
    state.textContent = 'Not connected';
    show('connection', `Closed with code ${code}${reason && `: ${reason}`}. Running again connects again.`, true);
    for (const id of [...operations.keys()]) forget(id);
    socket = undefined;
  };
}

function receive({ type, id, payload }) {
  const operation = operations.get(id);
  switch (type) {
    case 'connection_ack':
      state.textContent = 'Connected';
      acknowledged = true;
      // What was asked for while the connection was being made.
      for (const [waiting, { request }] of operations) send({ id: waiting, type: 'subscribe', payload: request });
      break;
    case 'ping':
      send({ type: 'pong' });
      break;
    case 'next':
      if (operation) show(operation.title, payload, Boolean(payload.errors));
      break;
    case 'error':
      if (operation) show(operation.title, { errors: payload }, true);
      forget(id);
      break;
    case 'complete':
      forget(id);
      break;
  }
}

function forget(id) {
  operations.get(id)?.entry.remove();
  operations.delete(id);
}

function stop(id) {
  if (acknowledged) send({ id, type: 'complete' });
  show(operations.get(id).title, 'Stopped.');
  forget(id);
  query.focus();
}

function run() {
  let given;
  try {
    given = variables.value.trim() ? JSON.parse(variables.value) : undefined;
  } catch (error) {
    show('variables', `Not JSON: ${error.message}`, true);
    return;
  }
  const id = `${(lastId += 1)}`;
  const [, kind = 'query', name = ''] = query.value.match(/^\s*(query|mutation|subscription)\b\s*(\w*)/m) ?? [];
  const title = `${kind} ${name} #${id}`.replace('  ', ' ');
  const button = make('button', { type: 'button', onclick: () => stop(id) }, `Stop ${title}`);
  const request = { query: query.value, variables: given };
  const entry = make('li', {}, button);
  operations.set(id, { title, request, entry });
  running.append(entry);
  if (!socket) connect();
  else if (acknowledged) send({ id, type: 'subscribe', payload: request });
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
element('clear').onclick = () => results.replaceChildren();
