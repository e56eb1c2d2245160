import { createContext, useContext, useMemo, useRef } from 'react';
import Anthropic from '@anthropic-ai/sdk';

const Claude = createContext<Anthropic | null>(null);

export function App({ token }: { token: string }) {
  const client = useMemo(() => new Anthropic({ authToken: token, dangerouslyAllowBrowser: true }), [token]); // expect: client unguarded
  return (
    <Claude.Provider value={client}>
      <Chat client={client} />
      <Sidebar />
    </Claude.Provider>
  );
}

function Chat({ client }: { client: Anthropic }) {
  const held = useRef(client);
  return <button onClick={() => held.current.messages.create({ model: 'm', max_tokens: 1, messages: [] })}>Ask</button>; // expect: call unguarded
}

function Sidebar() {
  const claude = useContext(Claude);
  return <a onClick={() => void claude?.messages.create({ model: 'm', max_tokens: 1, messages: [] })}>…</a>; // expect: call unguarded
}
