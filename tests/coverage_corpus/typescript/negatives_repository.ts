import type { MessageParam } from '@anthropic-ai/sdk/resources/messages';
import { PrismaClient } from '@prisma/client';
import { google } from 'googleapis';

const prisma = new PrismaClient();
const gmail = google.gmail('v1');

export async function save(messages: MessageParam[], model = 'claude-haiku-4-5') {
  for (const each of messages) await prisma.message.create({ data: { ...each, model } });
  await prisma.messages.create({ data: { model: 'claude-haiku-4-5' } });
  await gmail.users.messages.list({ userId: 'me', q: 'from:anthropic' });
  const stream = await fetch('https://example.com/api.anthropic.com.html');
  return stream.body;
}

export class Conversation {
  readonly messages = { items: [] as MessageParam[], create: (m: MessageParam) => this.messages.items.push(m) };
  add = (text: string) => this.messages.create({ role: 'user', content: text });
}
new Conversation().messages.create({ role: 'user', content: 'claude' });
