// Repeats requests that may be repeated.

const LONG = 60_000;

/** The error codes after which a client may repeat its request. */
const AGAIN = ['UNKNOWN', 'UNAVAILABLE'];

/** Sends a query or mutation over HTTP, and repeats it until the response is not one of these errors. */
export async function request(at, { text }, variables) {
  for (const end = Date.now() + LONG; ; ) {
    let answer;
    try {
      const response = await fetch(at.http, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ query: text, variables }),
        signal: AbortSignal.timeout(10_000),
      });
      answer = await response.json();
    } catch (error) {
      answer = { network: error };
    }
    const codes = (answer.errors ?? []).map(({ extensions }) => extensions?.code);
    const again = answer.network || (codes.length && codes.every((code) => AGAIN.includes(code)));
    if (!again) {
      if (!answer.data || codes.length) throw new Error(JSON.stringify(answer));
      return answer.data;
    }
    if (Date.now() > end) throw new Error(`not within ${LONG} ms: ${answer.network ?? JSON.stringify(answer)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
