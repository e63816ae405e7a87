// The schema of the GraphQL peers: the part of pub-sub's that the benchmark uses.

export const typeDefs = /* GraphQL */ `
  scalar JSON
  type Query { health: String }
  type Mutation { publish(topic: String!, data: JSON!): Publication! }
  type Subscription { messages(topic: String!): Message }
  type Publication { messageId: ID!, offset: Int! }
  type Message { messageId: ID!, topic: String!, data: JSON, offset: Int! }
`;

/// Makes messages: each topic counts its own.
export function messages() {
  const offsets = new Map();
  return (topic, data) => {
    const offset = (offsets.get(topic) ?? 0) + 1;
    offsets.set(topic, offset);
    return { messageId: crypto.randomUUID(), topic, data, offset };
  };
}
