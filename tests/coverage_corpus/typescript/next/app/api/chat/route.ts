import { client } from '@/lib/client';

export async function POST(request: Request) {
  const body = await request.json();
  const stream = client.messages.stream(body); // expect: call unguarded
  return new Response(stream.toReadableStream());
}
