// The tail of a topic: the rows in sight alone are in the document, and they are drawn once a frame however many come.

import { signal } from '@preact/signals';
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import { endpoint, execute, session } from './api.ts';
import { Details } from './details.tsx';
import { Follower, type Start } from './follower.ts';
import { TopicDocument } from './generated.ts';
import { access, anotherCredential, line } from './page.ts';
import { Position } from './position.tsx';
import type { Consumer } from './readers.tsx';
import { publishCommand } from './shell.ts';
import { RowView } from './tail-row.tsx';
import { MAX_ROWS, Tail, type Row } from './tail.ts';
import { Command } from './ui.tsx';
import { count, counted } from './words.ts';

/** The height of a row in pixels, as in the stylesheet: narrow screens and fingers have two lines. */
const HEIGHTS = { dense: 26, roomy: 48 };
const ROOMY = '(max-width: 45rem), (pointer: coarse)';
/** So many rows beyond those in sight are drawn, so that scrolling shows no blank. */
const BEYOND = 6;
/** How often a screen reader is told how many messages came, in milliseconds. */
const TOLD_MS = 5_000;

/** A tail that is followed. `version` changes at most once a frame. */
function useTail(topic: string, start: Start) {
  const state = useMemo(() => {
    const tail = new Tail();
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
    const follower = new Follower(topic, start, tail, {
      changed,
      connected: () => line.connected(),
      onAcknowledged: (ack, listener) => line.onAcknowledged(ack, listener),
      exists: async () => (await execute(TopicDocument, { name: topic }, { unasked: true })).topic !== null,
      ask: (message) => session.ask(message),
      anotherCredential,
      sleep: (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds)),
    });
    return { tail, version, follower, changed };
  }, [topic, start]);
  useEffect(() => {
    void state.follower.run();
    return () => state.follower.stop();
  }, [state]);
  return state;
}

function useRowHeight(): number {
  const query = useMemo(() => window.matchMedia(ROOMY), []);
  const [isRoomy, setRoomy] = useState(query.matches);
  useEffect(() => {
    const listen = () => setRoomy(query.matches);
    query.addEventListener('change', listen);
    return () => query.removeEventListener('change', listen);
  }, [query]);
  return isRoomy ? HEIGHTS.roomy : HEIGHTS.dense;
}

const PHASES: Record<string, string> = {
  starting: 'Starting',
  live: 'Live',
  broken: 'Reconnecting',
  full: 'Reading has stopped',
  missing: 'Waiting for the topic',
  stopped: 'Stopped',
};

/** Tells a screen reader what came, from time to time, and each gap. */
function Spoken({ tail }: { tail: Tail }) {
  const [text, setText] = useState('');
  useEffect(() => {
    let before = { received: tail.received, gaps: tail.gaps };
    const timer = setInterval(() => {
      const messages = tail.received - before.received;
      const gaps = tail.gaps - before.gaps;
      before = { received: tail.received, gaps: tail.gaps };
      const parts = [messages > 0 && counted(messages, 'new message'), gaps > 0 && counted(gaps, 'gap')];
      setText(parts.filter(Boolean).join(', '));
    }, TOLD_MS);
    return () => clearInterval(timer);
  }, [tail]);
  return (
    <p class="unseen" role="status">
      {text}
    </p>
  );
}

export function TailView({ topic, isEmpty, consumers }: { topic: string; isEmpty: boolean; consumers: Consumer[] }) {
  const [start, setStart] = useState<Start>({ last: 100 });
  const state = useTail(topic, start);
  const { tail, follower } = state;
  void state.version.value;
  const height = useRowHeight();
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [inSight, setInSight] = useState(400);
  const [selected, setSelected] = useState<Row | null>(null);
  const [isOpen, setOpen] = useState(false);
  /** A person has pressed Pause, or has scrolled up. */
  const [isPaused, setPaused] = useState(false);
  const [isUp, setUp] = useState(false);
  const isHeld = isPaused || isUp;
  const { rows } = tail;

  // Before the next frame: rows that leave would move those that a person reads.
  useLayoutEffect(() => {
    if (isHeld) tail.hold();
    else follower.release();
  }, [isHeld, tail, follower]);

  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const size = new ResizeObserver(() => {
      setInSight(element.clientHeight);
      // Where the rows wait, more room may show the end: then they go on.
      if (tail.isHeld) place();
    });
    size.observe(element);
    return () => size.disconnect();
  }, [tail]);

  // What follows the end stays there.
  useLayoutEffect(() => {
    const element = box.current;
    if (element && !isHeld) element.scrollTop = rows.length * height;
  });

  // The row that the details are about stays in sight.
  useLayoutEffect(() => {
    if (!isOpen || !selected) return;
    reveal(rows.indexOf(selected));
    place();
  }, [isOpen, selected, inSight]);

  const replay = (from: Start) => {
    setSelected(null);
    setOpen(false);
    setPaused(false);
    setUp(false);
    setStart(from);
  };
  const resume = () => {
    setPaused(false);
    setUp(false);
  };

  /** Takes over where the rows have been scrolled to. Above the end they wait. */
  const place = () => {
    const element = box.current;
    if (!element) return;
    setTop(element.scrollTop);
    setUp(element.scrollTop + element.clientHeight < element.scrollHeight - height);
  };

  const select = (index: number, opens: boolean) => {
    const row = rows[index];
    if (!row) return;
    setSelected(row);
    if (opens) open();
    reveal(index);
  };

  /** Shows the details. They take room from the rows, which stay where they are and wait. */
  const open = () => {
    setOpen(true);
    setUp(true);
  };

  /** Scrolls as far as is needed to show a row. */
  const reveal = (index: number) => {
    const element = box.current;
    if (!element || index < 0) return;
    const y = index * height;
    if (y < element.scrollTop) element.scrollTop = y;
    else if (y + height > element.scrollTop + element.clientHeight) element.scrollTop = y + height - element.clientHeight;
    else return;
    place();
  };

  const onKeyDown = (event: KeyboardEvent) => {
    const page = Math.max(1, Math.floor(inSight / height) - 1);
    const at = selected ? rows.indexOf(selected) : -1;
    const moves: Record<string, number> = {
      ArrowDown: Math.min(rows.length - 1, at + 1),
      ArrowUp: at < 0 ? rows.length - 1 : Math.max(0, at - 1),
      PageDown: Math.min(rows.length - 1, at + page),
      PageUp: at < 0 ? rows.length - 1 : Math.max(0, at - page),
      Home: 0,
      End: rows.length - 1,
    };
    const to = moves[event.key];
    if (to !== undefined) select(to, false);
    else if (event.key === 'Enter' && at >= 0) open();
    else if (event.key === 'Escape') setOpen(false);
    else if (event.key === ' ') setPaused(!isPaused);
    else return;
    event.preventDefault();
  };

  const onClick = (event: MouseEvent) => {
    const element = box.current;
    if (!element) return;
    const y = event.clientY - element.getBoundingClientRect().top + element.scrollTop;
    select(Math.floor(y / height), true);
  };

  const end = isHeld ? top : Math.max(0, rows.length * height - inSight);
  const first = Math.max(0, Math.floor(end / height) - BEYOND);
  const number = Math.ceil(inSight / height) + 2 * BEYOND;
  const shown = rows.slice(first, first + number);
  const waiting = tail.held.length;
  const isPausedNow = isHeld && follower.phase === 'live';

  return (
    <section class="card tail" aria-labelledby="tail-title">
      <div class="bar">
        <h2 id="tail-title">Messages</h2>
        <span class={`phase ${isPausedNow ? 'held' : follower.phase}`} role="status">
          {isPausedNow ? 'Paused' : PHASES[follower.phase]}
        </span>
        <span class="tallies">
          <span>{counted(tail.received, 'message')}</span>
          <span class={tail.gaps > 0 ? 'gap' : 'faint'}>
            {count(tail.missed)}
            {tail.isExact ? '' : ' or more'} missed
          </span>
        </span>
        <Position onReplay={replay} />
        <button type="button" class="small pause" aria-pressed={isHeld} onClick={() => (isHeld ? resume() : setPaused(true))}>
          {isHeld ? 'Continue' : 'Pause'}
        </button>
      </div>
      {tail.departed > 0 && (
        <p class="earlier">
          {counted(tail.departed, 'earlier row')} left this page, which shows the newest {count(MAX_ROWS)}.
        </p>
      )}
      <div
        ref={box}
        class="rows"
        role="listbox"
        tabIndex={0}
        aria-label={`Messages of ${topic}, oldest first`}
        aria-activedescendant={selected && shown.includes(selected) ? `row-${selected.id}` : undefined}
        onScroll={place}
        onKeyDown={onKeyDown}
        onClick={onClick}
      >
        <div class="all" style={{ height: `${rows.length * height}px` }}>
          {shown.map((row, index) => (
            <RowView
              // Elements are used again for other rows: that costs less than new ones.
              key={(first + index) % number}
              row={row}
              index={first + index}
              total={rows.length}
              height={height}
              isSelected={row === selected}
            />
          ))}
        </div>
        {rows.length === 0 && (
          <div class="empty" role="option" aria-selected="false">
            {isEmpty ? 'No messages yet.' : 'Nothing to show from this position yet. New messages appear here.'}
          </div>
        )}
      </div>
      {rows.length === 0 && isEmpty && (
        <div class="hint-line">
          <p>Publish one with the form, or from a terminal:</p>
          <Command text={publishCommand(endpoint, topic, access.value.credential !== '')} />
        </div>
      )}
      {isHeld && (
        <button type="button" class="news" onClick={resume}>
          {waiting > 0 ? `${count(waiting)}${follower.phase === 'full' ? ' and more' : ''} new` : 'To the newest'} ↓
        </button>
      )}
      {isOpen && selected && <Details topic={topic} row={selected} consumers={consumers} onReplay={replay} onClose={() => setOpen(false)} />}
      <Spoken tail={tail} />
    </section>
  );
}
