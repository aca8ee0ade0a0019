//! Frames through ports: whole, in order, recycled, and none lost to a sleeper.

use core::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::afxdp::{AfXdpOptions, Attach};
use crate::doorbell::poll_fds;

/// Sends `frames` one after another, and the answers as they come: both directions, all sizes.
fn there_and_back(near: &mut AfXdpPort, far: &mut AfXdpPort, lengths: &[usize]) {
    for (number, &length) in lengths.iter().enumerate() {
        let frame = numbered(number as u32, length);
        assert!(send(near, &frame));
        assert_eq!(wait_for(far, "a frame", |frame| number_of(frame).is_some()), frame);
        assert!(send(far, &frame));
        assert_eq!(wait_for(near, "the frame back", |frame| number_of(frame).is_some()), frame);
    }
}

#[test]
fn frames_pass_whole_both_ways_in_native_and_generic_mode() {
    for attach in [Attach::Native, Attach::Generic] {
        let Some(lab) = Lab::new(1, 1500) else { return };
        let options = AfXdpOptions { attach, ..AfXdpOptions::default() };
        let (mut near, mut far) = lab.pair(&options);
        there_and_back(&mut near, &mut far, &[60, 61, 1513, 1514, 18]);
        let counted = near.statistics();
        assert_eq!((counted.tx_frames, counted.rx_frames), (5, 5));
        assert_eq!((counted.tx_dropped, counted.rx_dropped), (0, 0));
    }
}

#[test]
fn a_million_frames_go_through_few_chunks() {
    const FRAMES: u32 = 1_000_000;
    const BURST: u32 = 32;
    let Some(lab) = Lab::new(1, 1500) else { return };
    let options = AfXdpOptions { rx_frames: 64, tx_frames: 48, ..AfXdpOptions::default() };
    let (mut near, mut far) = lab.pair(&options);
    let mut next = 0;
    for start in (0..FRAMES).step_by(BURST as usize) {
        for number in start..start + BURST {
            let frame = numbered(number, 60 + number as usize % 7);
            let taken = near.transmit(now(), frame.len(), TxOffload::default(), &mut |buffer| {
                buffer.copy_from_slice(&frame);
                frame.len()
            });
            assert!(taken.unwrap(), "a slot for each frame of a burst");
        }
        near.flush(now()).unwrap();
        until("the burst", || {
            far.receive(now(), 7, &mut |frame| {
                assert_eq!(frame.bytes, numbered(next, 60 + next as usize % 7), "in order, whole, once");
                next += 1;
            })
            .unwrap();
            // Rings again what the kernel put off.
            near.receive(now(), 1, &mut |_| {}).unwrap();
            next == start + BURST
        });
        until("every slot to be free again", || near.transmit_room(now()).frames == 48);
        assert_eq!(near.transmit_room(now()).bytes_outstanding, 0);
    }
    assert_eq!((near.statistics().tx_frames, far.statistics().rx_frames), (1_000_000, 1_000_000));
}

/// Once the fill ring had as many places as there were chunks, and a receiver on another core found it full.
#[test]
fn a_chunk_may_come_back_before_the_kernel_says_that_it_took_it() {
    const FRAMES: u64 = 200_000;
    let Some(lab) = Lab::new(1, 1500) else { return };
    let options = AfXdpOptions { rx_frames: 16, tx_frames: 16, ..AfXdpOptions::default() };
    let (mut near, mut far) = lab.pair(&options);
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let frame = numbered(0, 60);
            while !enough.load(Ordering::Relaxed) {
                near.transmit_room(now());
                send(&mut near, &frame);
            }
        });
        // Also when the receiver fails, so that the test ends.
        let received = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
            until("the frames", || {
                received(&mut far).unwrap();
                far.statistics().rx_frames >= FRAMES
            });
        }));
        enough.store(true, Ordering::Relaxed);
        sender.join().unwrap();
        received.unwrap();
    });
}

#[test]
fn a_full_ring_refuses_and_a_late_receiver_loses_what_is_counted() {
    let Some(lab) = Lab::new(1, 1500) else { return };
    let options = AfXdpOptions { rx_frames: 16, tx_frames: 20, ..AfXdpOptions::default() };
    let (mut near, mut far) = lab.pair(&options);
    let frame = numbered(0, 60);
    let offer = |near: &mut AfXdpPort| {
        near.transmit(now(), 60, TxOffload::default(), &mut |buffer| {
            buffer.copy_from_slice(&frame);
            60
        })
        .unwrap()
    };
    let accepted = (0..30).filter(|_| offer(&mut near)).count();
    assert_eq!(accepted, 20, "no more than there are slots, until the doorbell");
    assert_eq!(near.transmit_room(now()).bytes_outstanding, 20 * 60);
    near.flush(now()).unwrap();
    until("every frame to leave", || near.transmit_room(now()).frames == 20);
    let mut frames = 0;
    until("every frame to be received or counted as lost", || {
        frames += received(&mut far).unwrap().len() as u64;
        let statistics = far.statistics();
        assert_eq!(statistics.rx_frames, frames);
        frames + statistics.rx_dropped == 20
    });
    assert!(frames >= 16, "{frames}");
}

#[test]
fn a_frame_that_is_given_up_leaves_its_slot_to_the_next() {
    let Some(lab) = Lab::new(1, 1500) else { return };
    let (mut near, mut far) = lab.pair(&AfXdpOptions { tx_frames: 1, ..AfXdpOptions::default() });
    for _ in 0..3 {
        assert!(!near.transmit(now(), 100, TxOffload::default(), &mut |_| 0).unwrap());
    }
    assert_eq!(near.transmit_room(now()).frames, 1);
    assert!(send(&mut near, &numbered(1, 60)));
    wait_for(&mut far, "the only frame", |frame| number_of(frame) == Some(1));
}

#[test]
fn each_queue_is_a_port_and_what_it_sends_arrives_on_the_same_queue() {
    const QUEUES: u32 = 4;
    let Some(lab) = Lab::new(QUEUES, 1500) else { return };
    let options = AfXdpOptions { attach: Attach::Native, ..AfXdpOptions::default() };
    let (mut near, mut far) = (lab.open_near(&options).unwrap(), lab.open_far(&options).unwrap());
    assert_eq!((near.len(), far.len()), (4, 4));
    for queue in 0..QUEUES {
        assert_eq!(near[queue as usize].details().queue, queue);
        assert!(send(&mut near[queue as usize], &numbered(queue, 200)));
    }
    for (queue, port) in (0..QUEUES).zip(&mut far) {
        wait_for(port, "the queue's own frame", |frame| number_of(frame) == Some(queue));
    }
    assert_eq!(far.iter().map(|port| port.statistics().rx_frames).sum::<u64>(), 4, "no frame on two queues");
}

/// The generic hook of veth files a frame under a queue of its own choice, so which one is left open.
#[test]
fn several_queues_in_generic_mode_get_every_frame_once() {
    const QUEUES: u32 = 4;
    let Some(lab) = Lab::new(QUEUES, 1500) else { return };
    let options = AfXdpOptions { attach: Attach::Generic, ..AfXdpOptions::default() };
    let (mut near, mut far) = (lab.open_near(&options).unwrap(), lab.open_far(&options).unwrap());
    let mut arrived = Vec::new();
    for (queue, port) in (0..QUEUES).zip(&mut near) {
        assert!(send(port, &numbered(queue, 200)));
        until("the frame", || {
            let frames = far.iter_mut().flat_map(|port| received(port).unwrap());
            arrived.extend(frames.filter_map(|frame| number_of(&frame)));
            arrived.last() == Some(&queue)
        });
    }
    assert_eq!(arrived, [0, 1, 2, 3]);
}

#[test]
fn a_queue_without_a_port_stays_with_the_kernel() {
    let Some(lab) = Lab::new(2, 1500) else { return };
    lab.near("address add 10.9.0.2/24 dev near0");
    let options = AfXdpOptions { queues: vec![1], ..AfXdpOptions::default() };
    let mut near = lab.open_near(&options).unwrap().remove(0);
    let mut far = lab.open_far(&AfXdpOptions::default()).unwrap();
    let mac = far[0].info().mac;
    // An ARP request for the kernel's address, on each queue.
    let request = [&[0xff; 6], &mac, &[8, 6, 0, 1, 8, 0][..], &[6, 4, 0, 1], &mac, &[10, 9, 0, 1], &[0; 6]];
    let mut request = [&request.concat()[..], &[10, 9, 0, 2]].concat();
    request.resize(60, 0);
    assert!(send(&mut far[0], &request));
    until("the kernel's answer to what came on its queue", || {
        far.iter_mut().flat_map(|port| received(port).unwrap()).any(|frame| frame[20..22] == [0, 2])
    });
    assert!(send(&mut far[1], &request));
    wait_for(&mut near, "what came on ours", |frame| *frame == request[..]);
    assert_eq!(near.statistics().rx_frames, 1, "and nothing of the other");
}

/// Each side sleeps on its descriptor without a timeout and answers what wakes it.
#[test]
fn nothing_is_lost_between_the_last_look_and_the_sleep() {
    const ROUNDS: u32 = 5_000;
    let Some(lab) = Lab::new(1, 1500) else { return };
    let (mut near, mut far) = lab.pair(&AfXdpOptions::default());
    let next = |port: &mut AfXdpPort| -> u32 {
        let start = now();
        loop {
            let frames = received(port).unwrap();
            if let Some(number) = frames.iter().find_map(|frame| number_of(frame)) {
                return number;
            }
            poll_fds(&[port.readiness().unwrap()], Some(PATIENCE)).unwrap();
            assert!(now() - start < PATIENCE, "a frame was lost, or its wake-up");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                assert_eq!(next(&mut far), round);
                assert!(send(&mut far, &numbered(round, 64)));
            }
        });
        for round in 0..ROUNDS {
            assert!(send(&mut near, &numbered(round, 64)));
            assert_eq!(next(&mut near), round);
        }
    });
}

#[test]
fn jumbo_frames_use_several_chunks() {
    for attach in [Attach::Native, Attach::Generic] {
        let Some(lab) = Lab::new(1, 9000) else { return };
        let options = AfXdpOptions { attach, rx_frames: 64, tx_frames: 8, ..AfXdpOptions::default() };
        let ports = [lab.open_near(&options), lab.open_far(&options)];
        let [Ok(mut near), Ok(mut far)] = ports else {
            netns::skip(&format!("a kernel with multi-buffer XDP in {attach:?} mode: {ports:?}"));
            continue;
        };
        let (near, far) = (&mut near[0], &mut far[0]);
        assert!(near.details().multi_buffer);
        // Around the ends of chunks, and so often that every chunk is used again.
        for _ in 0..20 {
            there_and_back(near, far, &[60, 3839, 3840, 3841, 4080, 4081, 4096, 4097, 8192, 8193, 9014]);
        }
        assert_eq!(near.transmit_room(now()).frames, 8);
        assert_eq!(far.statistics().rx_dropped, 0);
    }
}
