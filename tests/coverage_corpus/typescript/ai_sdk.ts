import { anthropic, createAnthropic } from '@ai-sdk/anthropic';
import { generateObject, generateText, streamText, wrapLanguageModel } from 'ai';
import { openai } from '@ai-sdk/openai';

const own = createAnthropic({ apiKey: 'k' }); // expect: client unguarded
const model = wrapLanguageModel({ model: own('claude-opus-4-1'), middleware: [] });

export async function run(prompt: string) {
  await generateText({ model: anthropic('claude-haiku-4-5'), prompt }); // expect: call unguarded
  await streamText({ model, prompt }); // expect: call unguarded
  await generateObject({ model: 'anthropic/claude-sonnet-4.5', schema: {}, prompt }); // expect: call unguarded
  await generateText({ model: openai('gpt-5'), prompt });
  await generateText({ model: 'openai/gpt-5', prompt });
}
