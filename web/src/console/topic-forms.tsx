// The dialogs that create, change and delete a topic.

import { useState } from 'preact/hooks';
import { execute, messageOf } from './api.ts';
import { CreateTopicDocument, DeleteTopicDocument, UpdateTopicDocument } from './generated.ts';
import type { Retention, TopicLineFragment } from './generated.ts';
import { addressOf } from './routes.ts';
import { Dialog, Field, Problem } from './ui.tsx';
import { counted } from './words.ts';

/** Does something on request, and knows whether it is under way and what went wrong. */
export function useAction(act: () => Promise<void>) {
  const [problem, setProblem] = useState('');
  const [isBusy, setBusy] = useState(false);
  const run = async (event?: Event) => {
    event?.preventDefault();
    setBusy(true);
    setProblem('');
    try {
      await act();
    } catch (error) {
      setProblem(messageOf(error));
    } finally {
      setBusy(false);
    }
  };
  return { run, problem, isBusy, setProblem };
}

/** The number in a field; null where it is empty. */
const numberIn = (text: string) => (text.trim() === '' ? null : Number(text));

/** The text in a field; null where it is empty. */
const textIn = (text: string) => text.trim() || null;

const NAME_HINT = 'Up to 255 bytes. Dots separate segments: orders.eu.paid';

/** Creates a topic, or changes `topic`. */
export function TopicForm(props: { topic?: TopicLineFragment; isOpen: boolean; onClose: () => void }) {
  const { topic, isOpen, onClose } = props;
  return (
    <Dialog title={topic ? 'Change the topic' : 'New topic'} isOpen={isOpen} onClose={onClose}>
      <Settings topic={topic} onClose={onClose} />
    </Dialog>
  );
}

function Settings({ topic, onClose }: { topic: TopicLineFragment | undefined; onClose: () => void }) {
  const [name, setName] = useState(topic?.name ?? '');
  const [size, setSize] = useState(topic ? String(topic.maxMessages) : '');
  const [rate, setRate] = useState(topic ? String(topic.maxPublishRate) : '');
  const [age, setAge] = useState(topic?.maxAge ?? '');
  const [silence, setSilence] = useState(topic?.expectEvery ?? '');
  const [retention, setRetention] = useState<Retention>(topic?.retention ?? 'HISTORY');
  const [keys, setKeys] = useState(topic?.retention === 'LATEST_PER_KEY' ? String(topic.maxKeys) : '');
  const isKeyed = retention === 'LATEST_PER_KEY';
  const { run, problem, isBusy } = useAction(async () => {
    // What was not changed is not sent: a server that cannot do it would refuse it.
    const isChanged = retention !== (topic?.retention ?? 'HISTORY');
    const kept = isKeyed
      ? { maxMessages: null, maxAge: null, maxKeys: numberIn(keys) }
      : { maxMessages: numberIn(size), maxAge: textIn(age), maxKeys: null };
    const settings = {
      name,
      maxPublishRate: numberIn(rate),
      // An empty field means never, and a topic that is changed keeps what is not said.
      expectEvery: textIn(silence) ?? (topic ? '0s' : null),
      retention: isChanged ? retention : null,
      ...kept,
    };
    if (topic) await execute(UpdateTopicDocument, settings);
    else {
      await execute(CreateTopicDocument, settings);
      window.location.hash = addressOf(name);
    }
    onClose();
  });
  const number = { type: 'number', inputMode: 'numeric', step: 1, placeholder: topic ? '' : 'the server’s' } as const;
  const duration = { autocomplete: 'off', autocapitalize: 'off', spellcheck: false, placeholder: topic ? '' : 'the server’s' } as const;
  return (
    <form onSubmit={run}>
      {!topic && (
        <Field label="Name" hint={NAME_HINT}>
          {({ id, hint }) => (
            <input
              id={id}
              aria-describedby={hint}
              required
              autofocus
              autocomplete="off"
              autocapitalize="off"
              spellcheck={false}
              value={name}
              onInput={(event) => setName(event.currentTarget.value)}
            />
          )}
        </Field>
      )}
      <Field label="Keeps" hint={isKeyed ? 'Every message needs a key' : 'Older messages leave for newer ones'}>
        {({ id, hint }) => (
          <select id={id} aria-describedby={hint} value={retention} onChange={(event) => setRetention(event.currentTarget.value as Retention)}>
            <option value="HISTORY">its newest messages</option>
            <option value="LATEST_PER_KEY">the newest message of each key</option>
          </select>
        )}
      </Field>
      <div class="pair">
        {isKeyed ? (
          <Field label="Keys" hint="Keys that may have a value">
            {({ id, hint }) => (
              <input id={id} aria-describedby={hint} {...number} min={1} value={keys} onInput={(event) => setKeys(event.currentTarget.value)} />
            )}
          </Field>
        ) : (
          <Field label="History" hint="Messages that are kept">
            {({ id, hint }) => (
              <input id={id} aria-describedby={hint} {...number} min={1} value={size} onInput={(event) => setSize(event.currentTarget.value)} />
            )}
          </Field>
        )}
        <Field label="Publish rate" hint="Messages a second at most; 0: no limit">
          {({ id, hint }) => (
            <input id={id} aria-describedby={hint} {...number} min={0} value={rate} onInput={(event) => setRate(event.currentTarget.value)} />
          )}
        </Field>
      </div>
      <div class="pair">
        {!isKeyed && (
          <Field label="Age" hint="How old messages may become, like 24h; 0s: no limit">
            {({ id, hint }) => (
              <input id={id} aria-describedby={hint} {...duration} value={age} onInput={(event) => setAge(event.currentTarget.value)} />
            )}
          </Field>
        )}
        <Field label="Expected every" hint="Longer silence is reported, like 5m">
          {({ id, hint }) => (
            <input
              id={id}
              aria-describedby={hint}
              {...duration}
              placeholder="never"
              value={silence}
              onInput={(event) => setSilence(event.currentTarget.value)}
            />
          )}
        </Field>
      </div>
      <Problem text={problem} />
      <div class="actions">
        <button type="button" onClick={onClose}>
          Cancel
        </button>
        <button type="submit" class="primary" disabled={isBusy}>
          {topic ? 'Save' : 'Create'}
        </button>
      </div>
    </form>
  );
}

/** Asks once more before something is gone. */
export function Confirm(props: {
  title: string;
  text: string;
  action: string;
  isOpen: boolean;
  act: () => Promise<void>;
  onClose: () => void;
}) {
  const { title, text, action, isOpen, act, onClose } = props;
  const { run, problem, isBusy, setProblem } = useAction(async () => {
    await act();
    onClose();
  });
  const close = () => {
    setProblem('');
    onClose();
  };
  return (
    <Dialog title={title} isOpen={isOpen} onClose={close}>
      <form onSubmit={run}>
        <p>{text}</p>
        <Problem text={problem} />
        <div class="actions">
          <button type="button" autofocus onClick={close}>
            Cancel
          </button>
          <button type="submit" class="danger" disabled={isBusy}>
            {action}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

export function DeleteTopic({ topic, isOpen, onClose }: { topic: TopicLineFragment; isOpen: boolean; onClose: () => void }) {
  const { name, messageCount, subscriberCount } = topic;
  const act = async () => {
    await execute(DeleteTopicDocument, { name });
    window.location.hash = '#/';
  };
  const text = `This deletes “${name}” with ${counted(messageCount, 'message')} and all its consumers, and ends ${counted(subscriberCount, 'subscription')}. It cannot be undone.`;
  return <Confirm title="Delete the topic" text={text} action="Delete" isOpen={isOpen} act={act} onClose={onClose} />;
}
