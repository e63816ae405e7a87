// Lines over the last five minutes, drawn by uPlot. What they show stands beside them as text, too.

import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { KEPT } from './samples.ts';

export type Curve = {
  name: string;
  /** The newest value as text. */
  now: string;
  values: (number | null)[];
};

/** The colours of a first and a second curve, as the stylesheet names them. */
const COLOURS = ['--accent', '--second'];
const HEIGHT = 96;
/** The steps of the axis with the values, which are whole numbers. */
const STEPS = Array.from({ length: 10 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** power)).flat();

const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });

function optionsOf(element: HTMLElement, curves: number): uPlot.Options {
  const style = getComputedStyle(element);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const axis = {
    stroke: colour('--faint'),
    font: `11px ${style.fontFamily}`,
    grid: { stroke: colour('--line'), width: 1 },
    ticks: { show: false },
  };
  return {
    width: element.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    padding: [8, 16, 0, 0],
    scales: {
      x: { range: () => [Date.now() / 1_000 - KEPT, Date.now() / 1_000] },
      y: { range: (_plot, _min, max) => [0, Math.max(1, (max ?? 0) * 1.1)] },
    },
    axes: [
      { ...axis, size: 24, incrs: [60], values: '{HH}:{mm}' },
      { ...axis, size: 44, space: 20, incrs: STEPS, values: (_plot, splits) => splits.map((value) => compact.format(value)) },
    ],
    series: [
      {},
      ...COLOURS.slice(0, curves).map((name) => ({
        stroke: colour(name),
        fill: `${colour(name)}1f`,
        width: 1.5,
        points: { show: false },
      })),
    ],
  };
}

export function Plot({ title, times, curves }: { title: string; times: number[]; curves: Curve[] }) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const data = useRef<uPlot.AlignedData>([[]]);
  data.current = [times, ...curves.map(({ values }) => values)];
  const number = curves.length;

  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(optionsOf(element, number), data.current, element);
    };
    draw();
    const dark = window.matchMedia('(prefers-color-scheme: dark)');
    dark.addEventListener('change', draw);
    const size = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: HEIGHT }));
    size.observe(element);
    return () => {
      dark.removeEventListener('change', draw);
      size.disconnect();
      plot.current?.destroy();
    };
  }, [number]);
  // uPlot keeps the arrays that it is given, and these grow in place: it has to be told each time.
  useEffect(() => plot.current?.setData(data.current));

  const spoken = curves.map(({ name, now }) => `${name}: ${now}`).join('; ');
  return (
    <figure class="plot">
      <figcaption>
        <span>{title}</span>
        <span class="legend" aria-hidden="true">
          {curves.map(({ name, now }, index) => (
            <span key={name} class={`curve c${index}`}>
              {curves.length > 1 ? `${name} ` : ''}
              <b>{now}</b>
            </span>
          ))}
        </span>
      </figcaption>
      <div ref={place} class="canvas" role="img" aria-label={`${title} over the last five minutes. Now ${spoken}.`} />
    </figure>
  );
}
