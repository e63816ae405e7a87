// JSON whose numbers survive unchanged: JavaScript's own would round 12345678901234567890 and shorten 1.50.

/** What a browser of 2025 and later passes to a reviver; an older one passes nothing, and then numbers are JavaScript's. */
type Source = { source?: string };

const rawJson = (JSON as { rawJSON?: (text: string) => unknown }).rawJSON;

/** A reviver that keeps a number's text where JavaScript would write the number otherwise. */
export function exact(_key: string, value: unknown, context?: Source): unknown {
  if (typeof value !== 'number' || rawJson === undefined || context?.source === undefined) return value;
  return String(value) === context.source ? value : rawJson(context.source);
}

export const parse = (text: string): unknown => JSON.parse(text, exact);

/** The compact text of a value that `parse` has made. */
export const compact = (value: unknown): string => JSON.stringify(value) ?? 'null';

/** The same JSON on several lines. */
export const pretty = (text: string): string => JSON.stringify(parse(text), null, 2);

/** Why a text is no JSON; empty if it is. */
export function problemIn(text: string): string {
  if (text.trim() === '') return 'There is nothing to publish yet.';
  try {
    JSON.parse(text);
    return '';
  } catch (error) {
    return `This is not JSON: ${error instanceof Error ? error.message : String(error)}.`;
  }
}
