import OpenAI from 'openai';
import twilio from 'twilio';
import { Client as Discord } from 'discord.js';
import { WebClient } from '@slack/web-api';

const openai = new OpenAI();
const sms = twilio('sid', 'token');
const slack = new WebClient('t');
const discord = new Discord();

export async function run(thread: string) {
  await openai.beta.threads.messages.create(thread, { role: 'user', content: 'claude' });
  await openai.chat.completions.create({ model: 'gpt-5', messages: [], max_tokens: 5 });
  await openai.completions.create({ model: 'gpt-3.5-turbo-instruct', prompt: '' });
  await sms.messages.create({ body: 'hello from claude', from: '+1', to: '+2' });
  await slack.chat.postMessage({ channel: 'anthropic', text: 'x' });
  discord.on('message', (m) => m.channel.messages.fetch());
}
