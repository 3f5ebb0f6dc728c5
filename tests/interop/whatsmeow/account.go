package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/proto/waMmsRetry"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"
)

// What is not a message: the state of chats, calls, votes, pictures, history, media that have expired.

func (d *driver) handleMore(event any) {
	state := func(chat types.JID, name string, value any) {
		emit("state", fields{"chat": d.number(chat), name: value})
	}
	switch event := event.(type) {
	case *events.Mute:
		state(event.JID, "muted", event.Action.GetMuted())
	case *events.Pin:
		state(event.JID, "pinned", event.Action.GetPinned())
	case *events.Archive:
		state(event.JID, "archived", event.Action.GetArchived())
	case *events.Contact:
		state(event.JID, "name", event.Action.GetFullName())
	case *events.CallOffer:
		_, video := event.Data.GetOptionalChildByTag("video")
		d.called(event.BasicCallMeta, "offered", video)
	case *events.CallTerminate:
		d.called(event.BasicCallMeta, "ended", false)
	case *events.CallReject:
		d.called(event.BasicCallMeta, "rejected", false)
	case *events.CallAccept:
		d.called(event.BasicCallMeta, "accepted", false)
	}
}

func (d *driver) history(event *events.HistorySync) {
	messages := 0
	for _, chat := range event.Data.GetConversations() {
		messages += len(chat.GetMessages())
	}
	emit("history", fields{"chats": len(event.Data.GetConversations()), "messages": messages})
}

func (d *driver) called(call types.BasicCallMeta, state string, video bool) {
	d.lock.Lock()
	d.callers[call.CallID] = call.From
	d.lock.Unlock()
	emit("call", fields{"call": call.CallID, "state": state, "video": video})
}

func (d *driver) voted(event *events.Message) {
	poll := event.Message.GetPollUpdateMessage().GetPollCreationMessageKey().GetID()
	vote, err := d.client.DecryptPollVote(context.Background(), event)
	if err != nil {
		emit("failed", fields{"what": "vote in " + poll, "error": err.Error()})
		return
	}
	options := []string{}
	for _, hash := range vote.GetSelectedOptions() {
		options = append(options, hex.EncodeToString(hash))
	}
	from := d.number(event.Info.Sender, event.Info.SenderAlt)
	emit("vote", fields{"poll": poll, "from": from, "options": options})
}

func sum(bytes []byte) string {
	sum := sha256.Sum256(bytes)
	return hex.EncodeToString(sum[:])
}

func (d *driver) picture(ctx context.Context, of string) (fields, error) {
	picture, err := d.client.GetProfilePictureInfo(ctx, jid(of), nil)
	if errors.Is(err, whatsmeow.ErrProfilePictureNotSet) {
		return fields{"sha256": ""}, nil
	}
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, picture.URL, nil)
	if err != nil {
		return nil, err
	}
	response, err := d.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	bytes, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	return fields{"sha256": sum(bytes)}, nil
}

// downloadAgain asks the phone to upload an image again that has expired.
func (d *driver) downloadAgain(ctx context.Context, target string) (fields, error) {
	info, err := d.message(target)
	if err != nil {
		return nil, err
	}
	answer := make(chan *events.MediaRetry, 1)
	d.lock.Lock()
	image := d.images[target]
	d.retried[target] = answer
	d.lock.Unlock()
	if image == nil {
		return nil, fmt.Errorf("%s is no image", target)
	}
	if _, err := d.client.Download(ctx, image); err == nil {
		return nil, fmt.Errorf("%s has not expired", target)
	}
	if err := d.client.SendMediaRetryReceipt(ctx, &info, image.GetMediaKey()); err != nil {
		return nil, err
	}
	select {
	case event := <-answer:
		retry, err := whatsmeow.DecryptMediaRetryNotification(event, image.GetMediaKey())
		if err != nil {
			return nil, err
		}
		if retry.GetResult() != waMmsRetry.MediaRetryNotification_SUCCESS {
			return nil, fmt.Errorf("%s: %s", target, retry.GetResult())
		}
		image.DirectPath, image.URL = retry.DirectPath, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	bytes, err := d.client.Download(ctx, image)
	if err != nil {
		return nil, err
	}
	return fields{"sha256": sum(bytes)}, nil
}
