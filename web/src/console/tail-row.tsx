// One row of the tail.

import { Component } from 'preact';
import type { Row } from './tail.ts';
import { clock, missedIn, offsetsOf, reasonOf } from './words.ts';

/** So many characters of a message's data are in its row. */
const PREVIEW = 300;

type RowProps = { row: Row; index: number; total: number; height: number; isSelected: boolean };

export class RowView extends Component<RowProps> {
  override shouldComponentUpdate(next: RowProps): boolean {
    const { row, index, isSelected, height } = this.props;
    return row !== next.row || index !== next.index || isSelected !== next.isSelected || height !== next.height;
  }

  override render({ row, index, total, height, isSelected }: RowProps) {
    return (
      <div
        id={`row-${row.id}`}
        class={`row ${row.kind}${row.kind === 'note' && row.isBad ? ' bad' : ''}`}
        role="option"
        aria-selected={isSelected}
        aria-posinset={index + 1}
        aria-setsize={total}
        style={{ transform: `translateY(${index * height}px)`, height: `${height}px` }}
      >
        <Content row={row} />
      </div>
    );
  }
}

function Content({ row }: { row: Row }) {
  if (row.kind === 'note') return <span class="text">{row.text}</span>;
  if (row.kind === 'gap') {
    const offsets = offsetsOf(row.gap);
    return (
      <span class="text">
        <b>
          Gap: {missedIn(row.gap)}
          {offsets && ` (${offsets})`}
        </b>
        : {reasonOf(row.gap)}
      </span>
    );
  }
  const { offset, publishedAt, key, removed, text } = row.message;
  return (
    <>
      <span class="offset">{offset}</span>
      <span class="time">{clock(publishedAt)}</span>
      <span class="key">{key}</span>
      <span class={removed ? 'data faint' : 'data'}>{removed ? 'key removed' : text.slice(0, PREVIEW)}</span>
    </>
  );
}
