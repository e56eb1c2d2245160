import axios from 'axios';
import got from 'got';

const HOST = 'https://api.anthropic.com';
const api = axios.create({ baseURL: `${HOST}/v1`, headers: { 'x-api-key': process.env.KEY } }); // expect: client unguarded

export async function run(body: unknown) {
  await fetch('https://api.anthropic.com/v1/messages', { method: 'POST', body: JSON.stringify(body) }); // expect: call unguarded
  await fetch(`${HOST}/v1/messages/count_tokens`, { method: 'POST' }); // expect: call unguarded
  await axios.post(HOST + '/v1/messages', body); // expect: call unguarded
  await axios({ method: 'post', url: 'https://api.anthropic.com/v1/messages', data: body }); // expect: call unguarded
  await got.post(new URL('/v1/messages', HOST), { json: body }); // expect: call unguarded
  await api.post('/messages', body); // expect: call unguarded
}

const post = (url: string, body: unknown) => globalThis.fetch(url, { method: 'POST', body: String(body) }); // expect: call unguarded
export const indirect = () => post(`${HOST}/v1/complete`, {});
