// The small parts that the pages are made of.

import { useEffect, useId, useRef, useState } from 'preact/hooks';
import type { ComponentChildren } from 'preact';

/** A dialog of the browser's own: it keeps the focus inside, and Escape closes it. */
export function Dialog(props: { title: string; isOpen: boolean; onClose: () => void; children: ComponentChildren }) {
  const { title, isOpen, onClose, children } = props;
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const element = dialog.current;
    if (isOpen && !element?.open) element?.showModal();
    if (!isOpen && element?.open) element.close();
  }, [isOpen]);
  return (
    <dialog ref={dialog} aria-labelledby={id} onClose={onClose}>
      <h2 id={id}>{title}</h2>
      {isOpen && children}
    </dialog>
  );
}

/** What went wrong. A screen reader says it at once. */
export function Problem({ text, id }: { text: string; id?: string }) {
  return (
    <p class="problem" role="alert" {...(id === undefined ? {} : { id })}>
      {text}
    </p>
  );
}

/** A label with its field. */
export function Field(props: { label: string; hint?: string; children: (ids: { id: string; hint: string | undefined }) => ComponentChildren }) {
  const id = useId();
  const hint = props.hint === undefined ? undefined : `${id}-hint`;
  return (
    <div class="field">
      <label for={id}>{props.label}</label>
      {props.children({ id, hint })}
      {hint && (
        <p id={hint} class="hint">
          {props.hint}
        </p>
      )}
    </div>
  );
}

/** A button that copies a text, and says that it has. */
export function Copy({ text, label = 'Copy' }: { text: string; label?: string }) {
  const [said, setSaid] = useState('');
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setSaid('Copied');
    } catch {
      // Browsers give the clipboard to pages of HTTPS and of this machine alone.
      setSaid('Select the text to copy it');
    }
  };
  useEffect(() => {
    if (said === '') return;
    const timer = setTimeout(() => setSaid(''), 3_000);
    return () => clearTimeout(timer);
  }, [said]);
  return (
    <button type="button" class="small" onClick={copy}>
      <span aria-live="polite">{said || label}</span>
    </button>
  );
}

/** A command for a terminal. */
export function Command({ text }: { text: string }) {
  return (
    <div class="command">
      <code tabIndex={0}>{text}</code>
      <Copy text={text} />
    </div>
  );
}

/** How much of a bound is used. The numbers stand beside it, so it is for the eye alone. */
export function Meter({ value, max }: { value: number; max: number }) {
  const part = max > 0 ? Math.min(1, value / max) : 0;
  return (
    <svg class="meter" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">
      <rect class="track" width="100" height="4" />
      <rect class="fill" width={part * 100} height="4" />
    </svg>
  );
}

/** The last minute of a series, for the eye alone. */
export function Sparkline({ values }: { values: (number | null)[] }) {
  const shown = values.slice(-60);
  const max = Math.max(1, ...shown.map((value) => value ?? 0));
  const first = 60 - shown.length;
  const points = shown.map((value, index) => `${first + index},${(19 - (18 * (value ?? 0)) / max).toFixed(1)}`);
  return (
    <svg class="sparkline" viewBox="0 0 59 20" preserveAspectRatio="none" aria-hidden="true">
      {points.length > 1 && <polyline points={points.join(' ')} />}
    </svg>
  );
}

/** A figure with its name. */
export function Figure({ name, children, note }: { name: string; children: ComponentChildren; note?: ComponentChildren }) {
  return (
    <div class="figure">
      <dt>{name}</dt>
      <dd>
        <span class="value">{children}</span>
        {note !== undefined && <span class="note">{note}</span>}
      </dd>
    </div>
  );
}
