// The console: what the server has, live, by its public GraphQL API alone.

import './style.css';
import { render } from 'preact';
import { useEffect } from 'preact/hooks';
import { Header } from './header.tsx';
import { access, begin, repeat, SELDOM_MS } from './page.ts';
import { followAddress, route } from './routes.ts';
import { forgetAll, readHealth } from './store.ts';
import { TopicPage } from './topic-page.tsx';
import { TopicsPage } from './topics-page.tsx';

let isFirst = true;
let credential = access.value.credential;
access.subscribe(({ credential: present }) => {
  if (present !== credential) forgetAll();
  credential = present;
});

function Console() {
  const place = route.value;
  const name = place.page === 'topic' ? place.name : '';
  useEffect(() => repeat(readHealth, SELDOM_MS), []);
  useEffect(() => {
    document.title = name ? `${name} · pub-sub` : 'Topics · pub-sub';
    // Whoever uses a keyboard or a screen reader goes on from the new page's heading.
    if (!isFirst) document.querySelector<HTMLElement>('h1')?.focus();
    isFirst = false;
  }, [name]);
  return (
    <>
      <Header />
      {name ? <TopicPage key={name} name={name} /> : <TopicsPage />}
    </>
  );
}

followAddress();
begin();
render(<Console />, document.getElementById('console')!);
