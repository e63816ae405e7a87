import { StrictMode, useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { Room } from './room';
import { rooms } from './server';

/** The room is in the address, so that it can be linked to. */
const roomInAddress = () => decodeURIComponent(location.hash.slice(1)) || 'lobby';

function Page() {
  const [room, setRoom] = useState(roomInAddress);
  const [name, setName] = useState(() => sessionStorage.getItem('name') ?? 'somebody');
  const [others, setOthers] = useState<string[]>([]);
  useEffect(() => {
    const enter = () => setRoom(roomInAddress());
    addEventListener('hashchange', enter);
    return () => removeEventListener('hashchange', enter);
  }, []);
  useEffect(() => {
    const look = () => void rooms().then(setOthers, () => {});
    look();
    const timer = setInterval(look, 5_000);
    return () => clearInterval(timer);
  }, []);
  const all = [...new Set([room, ...others])].sort();
  return (
    <main>
      <header>
        <h1>{room}</h1>
        <label>
          Your name <input value={name} onChange={({ target }) => (setName(target.value), sessionStorage.setItem('name', target.value))} />
        </label>
      </header>
      <nav aria-label="Rooms">
        {all.map((one) => <a key={one} href={`#${encodeURIComponent(one)}`} aria-current={one === room ? 'page' : undefined}>{one}</a>)}
      </nav>
      <Room key={room} room={room} name={name} />
    </main>
  );
}

const page = document.getElementById('page');
if (page) createRoot(page).render(<StrictMode><Page /></StrictMode>);
