// Commands for a terminal that do what the page does.

/** A text as one word of a POSIX shell. */
export const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

/** The command that publishes to a topic. The key itself is not in it: it would end up in the shell's history. */
export function publishCommand(endpoint: URL, topic: string, isSignedIn: boolean): string {
  const address = new URL('publish', endpoint).href;
  const key = isSignedIn ? ' -H "Authorization: Bearer $KEY"' : '';
  return `curl -s ${address}${key} -d ${quoted(JSON.stringify({ topic, data: { hello: 'world' } }))}`;
}
