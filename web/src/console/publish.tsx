// The form that publishes a message.

import { useState } from 'preact/hooks';
import { execute, messageOf } from './api.ts';
import { PublishDocument } from './generated.ts';
import { headersIn } from './headers.ts';
import { parse, problemIn } from './json.ts';
import { Field, Problem } from './ui.tsx';

const EXAMPLE = '{ "hello": "world" }';

export function Publish({ topic }: { topic: string }) {
  const [data, setData] = useState(EXAMPLE);
  const [key, setKey] = useState('');
  const [messageId, setMessageId] = useState('');
  const [headers, setHeaders] = useState('');
  const [ttl, setTtl] = useState('');
  const [problem, setProblem] = useState('');
  const [isNoJson, setNoJson] = useState(false);
  const [done, setDone] = useState('');
  const [isBusy, setBusy] = useState(false);

  const publish = async (text: string) => {
    const wrong = problemIn(text);
    setDone('');
    setProblem(wrong);
    setNoJson(wrong !== '' && text.trim() !== '');
    if (wrong) return;
    setBusy(true);
    try {
      const given = headersIn(headers);
      // What is not given is left out: null would be a value.
      const variables = {
        topic,
        data: parse(text),
        ...(key && { key }),
        ...(messageId && { messageId }),
        ...(given && { headers: given }),
        ...(ttl.trim() && { ttl: ttl.trim() }),
      };
      const { publish: published } = await execute(PublishDocument, variables);
      setDone(
        published.duplicate
          ? `The topic knows this id: nothing was stored. The first message has offset ${published.offset}.`
          : `Published with offset ${published.offset}.`,
      );
    } catch (error) {
      setProblem(messageOf(error));
    } finally {
      setBusy(false);
    }
  };

  const submit = (event: Event) => {
    event.preventDefault();
    void publish(data);
  };
  const asText = () => {
    const text = JSON.stringify(data);
    setData(text);
    void publish(text);
  };

  return (
    <form
      class="card publish"
      aria-labelledby="publish-title"
      onSubmit={submit}
      onKeyDown={(event) => event.key === 'Enter' && (event.ctrlKey || event.metaKey) && void publish(data)}
    >
      <h2 id="publish-title">Publish</h2>
      <Field label="Data (JSON)">
        {({ id }) => (
          <textarea
            id={id}
            rows={2}
            autocomplete="off"
            autocapitalize="off"
            spellcheck={false}
            aria-invalid={isNoJson}
            aria-describedby="publish-problem"
            value={data}
            onInput={(event) => setData(event.currentTarget.value)}
          />
        )}
      </Field>
      <div class="pair">
        <Field label="Key">
          {({ id }) => (
            <input id={id} autocomplete="off" spellcheck={false} placeholder="optional" value={key} onInput={(event) => setKey(event.currentTarget.value)} />
          )}
        </Field>
        <Field label="Id">
          {({ id }) => (
            <input
              id={id}
              autocomplete="off"
              spellcheck={false}
              placeholder="optional"
              value={messageId}
              onInput={(event) => setMessageId(event.currentTarget.value)}
            />
          )}
        </Field>
      </div>
      <details>
        <summary>Headers and time to live</summary>
        <Field label="Headers" hint="One a line, like traceparent: 00-…">
          {({ id, hint }) => (
            <textarea
              id={id}
              aria-describedby={hint}
              rows={2}
              autocomplete="off"
              autocapitalize="off"
              spellcheck={false}
              value={headers}
              onInput={(event) => setHeaders(event.currentTarget.value)}
            />
          )}
        </Field>
        <Field label="Time to live" hint="How long the message is kept at most, like 30s">
          {({ id, hint }) => (
            <input
              id={id}
              aria-describedby={hint}
              autocomplete="off"
              autocapitalize="off"
              spellcheck={false}
              placeholder="the topic’s"
              value={ttl}
              onInput={(event) => setTtl(event.currentTarget.value)}
            />
          )}
        </Field>
      </details>
      <Problem id="publish-problem" text={problem} />
      <div class="actions">
        <span role="status" class="done">
          {done}
        </span>
        {isNoJson && (
          <button type="button" onClick={asText}>
            Publish as text
          </button>
        )}
        <button type="submit" class="primary" disabled={isBusy} title="Ctrl+Enter">
          Publish
        </button>
      </div>
    </form>
  );
}
