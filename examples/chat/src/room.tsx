import { consume, publish, type Gap } from 'pub-sub-client';
import { useEffect, useLayoutEffect, useReducer, useRef, useState, type FormEvent } from 'react';
import { earlier, said, SERVER, topicOf, type ChatMessage } from './server';
import { EMPTY, LAST, reduce, type Action, type Pending, type Timeline } from './timeline';

const STATUS = { connecting: 'Connecting…', live: 'Connected', waiting: 'Connection lost. Connecting again…' };

/** Follows a room: its last messages, then new ones. After a broken connection it continues behind the last one. */
function useRoom(room: string): [Timeline, (action: Action) => void] {
  const [timeline, dispatch] = useReducer(reduce, EMPTY);
  useEffect(() => {
    const stop = new AbortController();
    const tell = (action: Action) => stop.signal.aborted || dispatch(action);
    tell({ type: 'entered' });
    consume({
      url: SERVER,
      topic: topicOf(room),
      last: LAST,
      onMessage: (message) => tell({ type: 'message', message }),
      onGap: (gap) => tell({ type: 'gap', gap }),
      onStatus: (status) => tell({ type: 'status', status }),
      signal: stop.signal,
    }).catch((error: Error) => tell({ type: 'ended', reason: error.message }));
    return () => stop.abort();
  }, [room]);
  return [timeline, dispatch];
}

export function Room({ room, name }: { room: string; name: string }) {
  const [{ rows, pending, status, hasEarlier, end }, dispatch] = useRoom(room);
  const list = useRef<HTMLDivElement>(null);
  const isAtEnd = useRef(true);
  useLayoutEffect(() => {
    if (isAtEnd.current) list.current?.scrollTo(0, list.current.scrollHeight);
  }, [rows, pending]);

  const loadEarlier = async () => {
    const first = rows.find((row) => 'message' in row);
    if (first) dispatch({ type: 'earlier', ...(await earlier(room, first.message.cursor)) });
  };
  const send = (text: string, id: string = crypto.randomUUID()) => {
    dispatch({ type: 'sending', pending: { id, text } });
    // With the id, the message is stored once, however often it is sent.
    publish({ url: SERVER, topic: topicOf(room), id, data: { from: name, text } }).catch((error: Error) =>
      dispatch({ type: 'refused', id, problem: error.message }),
    );
  };

  return (
    <section className="room" aria-label={`Room ${room}`}>
      <p className={`status ${status}`} role="status">{end ?? STATUS[status]}</p>
      <div
        ref={list}
        className="rows"
        role="log"
        aria-label="Messages"
        tabIndex={0}
        onScroll={({ currentTarget: { scrollTop, clientHeight, scrollHeight } }) => {
          isAtEnd.current = scrollTop + clientHeight > scrollHeight - 20;
        }}
      >
        <ol>
          {hasEarlier && <li className="earlier"><button type="button" onClick={() => void loadEarlier()}>Earlier messages</button></li>}
          {rows.map((row) => ('gap' in row ? <GapRow key={`gap ${row.gap.topic} ${row.gap.toOffset}`} gap={row.gap} /> : <MessageRow key={row.message.id} message={row.message} name={name} />))}
          {pending.map((one) => <PendingRow key={one.id} pending={one} again={() => send(one.text, one.id)} />)}
        </ol>
      </div>
      <Compose send={send} />
    </section>
  );
}

function MessageRow({ message, name }: { message: ChatMessage; name: string }) {
  const { from, text } = said(message);
  return (
    <li className={from === name ? 'message own' : 'message'}>
      <b>{from}</b> <time dateTime={message.publishedAt}>{new Date(message.publishedAt).toLocaleTimeString()}</time>
      <p>{text}</p>
    </li>
  );
}

const REASONS: Record<string, string> = {
  EXPIRED: 'the room no longer keeps them',
  NEW_EPOCH: 'the room was made again meanwhile',
  SLOW_CONSUMER: 'they came faster than this page could read them',
};

function GapRow({ gap: { missed, reason } }: { gap: Gap }) {
  const what = missed === null ? 'Messages are missing here' : missed === 1 ? '1 message is missing here' : `${missed} messages are missing here`;
  return <li className="gap">{what}: {REASONS[reason] ?? reason}.</li>;
}

function PendingRow({ pending: { text, problem }, again }: { pending: Pending; again: () => void }) {
  return (
    <li className="message own pending">
      <p>{text}</p>
      {problem === undefined ? <small>Sending…</small> : <small>Not sent: {problem} <button type="button" onClick={again}>Try again</button></small>}
    </li>
  );
}

function Compose({ send }: { send: (text: string) => void }) {
  const [text, setText] = useState('');
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (text.trim() === '') return;
    send(text.trim());
    setText('');
  };
  return (
    <form className="compose" onSubmit={submit}>
      <input aria-label="Message" placeholder="Message" value={text} onChange={({ target }) => setText(target.value)} />
      <button type="submit">Send</button>
    </form>
  );
}
