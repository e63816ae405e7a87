// How the page reaches the server: `?server=…` in its address says where that is.

import { graphql } from './gql';
import type { TypedDocumentString } from './gql/graphql';

export const SERVER = new URLSearchParams(location.search).get('server') ?? 'http://localhost:8080';

/** Every room is a topic with this prefix. */
const PREFIX = 'chat.';
export const topicOf = (room: string): string => PREFIX + room;

const ROOMS = graphql(`
  query Rooms($prefix: String!) {
    topics(prefix: $prefix, first: 100) { nodes { name messageCount } }
  }
`);

const EARLIER = graphql(`
  query Earlier($topic: String!, $before: Cursor!) {
    topic(name: $topic) {
      messages(last: 30, before: $before) {
        nodes { id messageId data offset cursor publishedAt }
        pageInfo { hasPreviousPage }
      }
    }
  }
`);

/** Executes an operation. Its result and its variables have the types that codegen has made of it. */
async function execute<Result, Variables>(document: TypedDocumentString<Result, Variables>, variables: Variables): Promise<Result> {
  const response = await fetch(`${SERVER}/graphql`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ query: document, variables }),
  });
  const { data, errors } = (await response.json()) as { data?: Result | null; errors?: { message: string }[] };
  if (!data || errors?.length) throw new Error(errors?.[0]?.message ?? 'no data');
  return data;
}

export async function rooms(): Promise<string[]> {
  const { topics } = await execute(ROOMS, { prefix: PREFIX });
  return topics.nodes.map(({ name }) => name.slice(PREFIX.length));
}

/** The messages before a cursor, oldest first, and whether there are more before them. */
export async function earlier(room: string, before: string) {
  const { topic } = await execute(EARLIER, { topic: topicOf(room), before });
  return { messages: topic?.messages.nodes ?? [], hasMore: topic?.messages.pageInfo.hasPreviousPage ?? false };
}

/** A message as codegen knows it from the query. One that comes live has these fields, too. */
export type ChatMessage = Awaited<ReturnType<typeof earlier>>['messages'][number];

/** What is said. Whoever can reach the server may publish anything, so this is checked. */
export function said({ data }: ChatMessage): { from: string; text: string } {
  if (typeof data === 'object' && data !== null && 'from' in data && 'text' in data) {
    return { from: String(data.from), text: String(data.text) };
  }
  return { from: '?', text: JSON.stringify(data) };
}
