// Headers as a person writes them: one a line, its name before a colon.

/** The headers in a text; `null` where there are none. What is no header is an error that names the line. */
export function headersIn(text: string): Record<string, string> | null {
  const lines = text.split('\n').map((line) => line.trim());
  // Not an object: `__proto__` would be no name like others.
  const headers = new Map<string, string>();
  lines.forEach((line, index) => {
    if (line === '') return;
    const colon = line.indexOf(':');
    const name = line.slice(0, Math.max(colon, 0)).trim();
    if (name === '') throw new Error(`Line ${index + 1} of the headers is not “name: value”.`);
    if (headers.has(name)) throw new Error(`The header “${name}” stands there twice.`);
    headers.set(name, line.slice(colon + 1).trim());
  });
  return headers.size > 0 ? Object.fromEntries(headers) : null;
}
