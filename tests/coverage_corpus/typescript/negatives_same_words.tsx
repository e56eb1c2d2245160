import { create } from 'zustand';
import { createClient } from '@supabase/supabase-js';
import { messages } from './i18n';

const client = createClient('u', 'k');
const useStore = create((set) => ({ messages: [], add: (m: string) => set({ messages: [m] }) }));

export function Page({ model = 'claude-haiku-4-5' }) {
  const { beta, completions } = useStore();
  client.from('messages').insert({ model, claude: true }).select();
  client.channel('anthropic').send({ type: 'broadcast' });
  return <p title={messages.create}>{completions.create('x')}{beta.stream()}{messages.stream({ max_tokens: 1 })}</p>;
}
