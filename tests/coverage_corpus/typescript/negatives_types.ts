import type Anthropic from '@anthropic-ai/sdk';
import { APIError, type Message } from '@anthropic-ai/sdk';
import Sdk, { toFile } from '@anthropic-ai/sdk';

export type Params = Anthropic.MessageCreateParams;
export interface Store {
  client: Anthropic;
  save(message: Message): Promise<void>;
}
export function isOverloaded(error: unknown): boolean {
  return error instanceof APIError && (error as APIError).status === 529;
}
export const again = (error: unknown) => error instanceof Sdk.RateLimitError || new Sdk.APIError(1, {}, '', new Headers());
export const file = () => toFile(Buffer.from(''), 'x');
export declare function make(): Anthropic;
