// Numbers, times and errors as people read them.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 });

export const count = (value: number): string => whole.format(value);

/** A count with its noun: "1 message", "2 messages". */
export const counted = (value: number, noun: string): string => `${count(value)} ${noun}${value === 1 ? '' : 's'}`;

/** How many messages a topic may keep, or keys that keep one. */
export const mostKept = (topic: { retention: string; maxMessages: number; maxKeys: number }): number =>
  topic.retention === 'LATEST_PER_KEY' ? topic.maxKeys : topic.maxMessages;

/** Messages a second. Null is a rate that is not known. */
export function rate(value: number | null, isEstimate = false): string {
  if (value === null) return '–';
  const text = value > 0 && value < 100 ? tenth.format(value) : whole.format(value);
  return isEstimate && value > 0 ? `≈ ${text}` : text;
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function bytes(value: number): string {
  let unit = 0;
  let rest = value;
  while (rest >= 1024 && unit < UNITS.length - 1) {
    rest /= 1024;
    unit += 1;
  }
  return `${unit === 0 || rest >= 100 ? whole.format(rest) : tenth.format(rest)} ${UNITS[unit]}`;
}

/** A span of time with its one or two largest units. */
export function span(seconds: number): string {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3_600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3_600)} h ${Math.floor((s % 3_600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3_600)} h`;
}

/** How long ago a time was. The server's clock may be ahead of this one. */
export function ago(time: string, now: number): string {
  const seconds = (now - Date.parse(time)) / 1_000;
  return seconds < 2 ? 'just now' : `${span(seconds)} ago`;
}

const two = (value: number) => String(value).padStart(2, '0');

/** The local time of day, to the millisecond. */
export function clock(time: string | number): string {
  const at = new Date(time);
  const milliseconds = String(at.getMilliseconds()).padStart(3, '0');
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${milliseconds}`;
}

/** The local date and time, to the second. */
export function date(time: string | number): string {
  const at = new Date(time);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(time).slice(0, 8)}`;
}

export type Gap = { missed: number | null; fromOffset: number; toOffset: number; reason: string };

const REASONS: Record<string, string> = {
  SLOW_CONSUMER: 'this page read too slowly, and the history no longer has them',
  EXPIRED: 'the history no longer has them',
  NEW_EPOCH: 'the topic was created again, or the server restarted without its messages',
  SEEK: 'its consumer was moved past them',
  COMPACTED: 'newer messages of the same keys have replaced them',
};

/** How many messages a gap stands for. */
export function missedIn({ missed, reason }: Gap): string {
  if (missed === null) return 'An unknown number of messages was missed';
  // The position was of another epoch. How many messages of that one were not read, nobody knows.
  if (missed === 0 && reason === 'NEW_EPOCH') return 'Another epoch of the topic begins here';
  return `${counted(missed, 'message')} missed`;
}

/** Which messages a gap stands for; empty where there is none to name. */
export function offsetsOf({ fromOffset, toOffset }: Gap): string {
  if (toOffset < fromOffset) return '';
  return fromOffset === toOffset ? `offset ${fromOffset}` : `offsets ${fromOffset} to ${toOffset}`;
}

/** Why, in a sentence without its stop. A reason that this page does not know yet is shown as it is. */
export const reasonOf = ({ reason }: Gap): string => REASONS[reason] ?? reason;

/** A message of the server as a sentence. */
export function sentence(message: string): string {
  const capital = message.charAt(0).toUpperCase() + message.slice(1);
  return capital === '' || /[.!?]$/.test(capital) ? capital : `${capital}.`;
}

/** The error of an operation in plain words. */
export function explained(code: string, message: string, retryAfterMs?: number): string {
  switch (code) {
    case 'FORBIDDEN':
      return `Your key or token does not allow this. ${sentence(message)}`;
    case 'RATE_LIMITED':
      return retryAfterMs === undefined
        ? sentence(message)
        : `${sentence(message)} Try again in ${count(Math.ceil(retryAfterMs))} ms.`;
    default:
      return sentence(message);
  }
}
