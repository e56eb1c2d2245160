import { http, HttpResponse } from 'msw';
import nock from 'nock';
import { expect, vi } from 'vitest';
import Anthropic from '@anthropic-ai/sdk';

vi.mock('@anthropic-ai/sdk');
const server = http.post('https://api.anthropic.com/v1/messages', () => HttpResponse.json({}));
nock('https://api.anthropic.com').post('/v1/messages').reply(200, {});

const client = new Anthropic(); // expect: client unguarded
vi.mocked(client.messages.create).mockResolvedValue({} as never);
vi.spyOn(client.messages, 'create');
expect(client.messages.create).toHaveBeenCalledTimes(1);
(client.messages.create as any).mockReset();
export { server };
