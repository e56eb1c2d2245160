import { Body, Controller, Post } from '@nestjs/common';
import { ChatService } from './chat.service';

@Controller('chat')
export class ChatController {
  constructor(private readonly chat: ChatService) {}

  @Post()
  async post(@Body() body: { prompt: string }) {
    return { title: await this.chat.title(body.prompt), text: await this.chat.chat(body.prompt) };
  }
}
