// What a room shows, in the order of its topic: messages, gaps, and at the end what is still being sent.

import type { Gap, Status } from 'pub-sub-client';
import type { ChatMessage } from './server';

export type Row = { message: ChatMessage } | { gap: Gap };
export interface Pending {
  id: string;
  text: string;
  /** Why it was refused. It is still being sent without this. */
  problem?: string;
}

export interface Timeline {
  rows: Row[];
  pending: Pending[];
  status: Status;
  /** Whether there may be messages before the first row. */
  hasEarlier: boolean;
  /** Why nothing more comes. */
  end?: string;
}

/** The page holds this many rows. Older ones can be loaded again. */
const MAX_ROWS = 500;
/** How many messages are asked for when the room is entered. */
export const LAST = 50;

export const EMPTY: Timeline = { rows: [], pending: [], status: 'connecting', hasEarlier: false };

export type Action =
  | { type: 'entered' }
  | { type: 'message'; message: ChatMessage }
  | { type: 'gap'; gap: Gap }
  | { type: 'status'; status: Status }
  | { type: 'ended'; reason: string }
  | { type: 'earlier'; messages: ChatMessage[]; hasMore: boolean }
  | { type: 'sending'; pending: Pending }
  | { type: 'refused'; id: string; problem: string };

function append(timeline: Timeline, row: Row): Timeline {
  const rows = [...timeline.rows, row].slice(-MAX_ROWS);
  const first = rows.find((row) => 'message' in row);
  return { ...timeline, rows, hasEarlier: timeline.hasEarlier || (first !== undefined && first.message.offset > 1) };
}

export function reduce(timeline: Timeline, action: Action): Timeline {
  switch (action.type) {
    case 'entered':
      return EMPTY;
    case 'message': {
      const pending = timeline.pending.filter(({ id }) => id !== action.message.messageId);
      return append({ ...timeline, pending }, { message: action.message });
    }
    case 'gap':
      return append(timeline, { gap: action.gap });
    case 'status':
      return { ...timeline, status: action.status };
    case 'ended':
      return { ...timeline, end: action.reason };
    case 'earlier': {
      const rows: Row[] = [...action.messages.map((message) => ({ message })), ...timeline.rows];
      return { ...timeline, rows, hasEarlier: action.hasMore };
    }
    case 'sending':
      return { ...timeline, pending: [...timeline.pending.filter(({ id }) => id !== action.pending.id), action.pending] };
    case 'refused': {
      const { id, problem } = action;
      return { ...timeline, pending: timeline.pending.map((pending) => (pending.id === id ? { ...pending, problem } : pending)) };
    }
  }
}
